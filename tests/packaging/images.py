"""Images of our Dockerfile without a Docker engine: buildah, on a Debian 13 made by debootstrap.

``python:3.13-slim`` can't be had here: it is on Docker's registry. What stands in for it is a
Debian 13 with Python 3.13 as well, but has Python in another folder, and ``make``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.packaging.support import ROOT
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["BASE", "Container", "build_base", "build_image", "container", "wait_healthy"]

#: Kept between runs; git ignores it.
_FOLDER = ROOT / "build" / "images"
_STORAGE = [f"--root={_FOLDER / 'storage'}", f"--runroot={_FOLDER / 'run'}"]
_ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
#: What is in the folder of the Debian, and not of it.
_LEFT_OUT = ("./checkout", "./proc/*", "./dev/*", "./root/.cache", "./var/cache/apt/*")

BASE = "localhost/python-3.13-stand-in"


def buildah(command: str, *arguments: str) -> str:
    """Run buildah; return what it prints."""
    done = subprocess.run(
        ["buildah", *_STORAGE, command, *arguments],
        env=_ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout.strip()


def build_base() -> None:
    """Make what stands in for ``python:3.13-slim``, unless it is there."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    if BASE in buildah("images", "--format", "{{.Name}}").split():
        return
    subprocess.run([ROOT / "scripts" / "debian13"], check=True)
    archive = _FOLDER / "debian.tar"
    excluded = [f"--exclude={each}" for each in _LEFT_OUT]
    debian = str(ROOT / "build" / "debian13")
    subprocess.run(["tar", "-C", debian, *excluded, "-cf", str(archive), "."], check=True)
    name = buildah("from", "scratch")
    buildah("add", name, str(archive), "/")
    buildah("config", "--env", "PIP_CERT=/etc/ssl/certs/ca-certificates.crt", name)
    buildah("commit", "--rm", name, BASE)
    archive.unlink()


def build_image(target: str) -> str:
    """Build a target of the Dockerfile; return the image's name."""
    name = f"localhost/convotic-{target}"
    buildah("bud", "--layers", "--build-arg", f"PYTHON={BASE}", "--target", target, "-t", name, ".")
    return name


class Container:
    """A container: commands run in it as in ``docker exec``. Its network is this machine's."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._environment = [f"--env={name}={value}" for name, value in environment.items()]
        self._started: list[subprocess.Popen[bytes]] = []
        self.outputs: list[Path] = []

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._line(command), env=_ENVIRONMENT, capture_output=True, text=True, check=False
        )

    def start(self, *command: str) -> None:
        """Start a command; its output is kept."""
        output = _FOLDER / f"{uuid.uuid4().hex}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                self._line(command), env=_ENVIRONMENT, stdout=file, stderr=file
            )
        self._started.append(process)
        self.outputs.append(output)

    def output(self) -> str:
        """Return what was started has written."""
        return "".join(path.read_text(errors="replace") for path in self.outputs)

    def stop(self) -> list[int]:
        """Send SIGTERM to what was started, as ``docker stop`` does; return the exit codes."""
        codes = []
        for process in self._started:
            if process.poll() is None:
                for leaf in psutil.Process(process.pid).children(recursive=True):
                    if not leaf.children():
                        leaf.send_signal(signal.SIGTERM)
            codes.append(process.wait(PATIENCE))
        self._started.clear()
        return codes

    def _line(self, command: tuple[str, ...]) -> list[str]:
        return ["buildah", *_STORAGE, "run", *self._environment, self._name, "--", *command]


@contextmanager
def container(image: str, environment: Mapping[str, str], *hosts: str) -> Iterator[Container]:
    """Make a container of an image; its names of other containers are this machine."""
    name = buildah("from", *(f"--add-host={host}:127.0.0.1" for host in hosts), image)
    made = Container(name, environment)
    try:
        yield made
    finally:
        made.stop()
        buildah("rm", name)
        for path in made.outputs:
            path.unlink()


def wait_healthy(container: Container, *test: str) -> None:
    """Wait until a health check of docker-compose.yml's succeeds in a container."""
    wait_until(lambda: container.run(*test).returncode == 0, what=" ".join(test))
