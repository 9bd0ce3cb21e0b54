"""Google's own Pub/Sub emulator, started for a test session.

It needs Debian's ``google-cloud-cli-pubsub-emulator`` and Java. Where they are missing, tests skip;
where ``CI`` is set, they fail.

Emulator 0.8.20 has a packaging bug: a cancelled stream raises NoSuchMethodError in the server,
which then never learns that the stream ended, and keeps giving it messages. A class of ten lines,
put before the jar, is the whole fix (``io.grpc.InternalStatus`` lacks a method there).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until

__all__ = ["google_emulator", "reset_google_emulator", "start_google_emulator"]

PACKAGE = "google-cloud-cli-pubsub-emulator"
MAIN_CLASS = "com.google.cloud.pubsub.testing.v1.Main"

#: For tests: it starts with less work, and compiles little of what it runs but a few times.
LIGHT = "-Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

_SHIM = """\
package io.grpc;

public final class InternalStatus {
  public static final Metadata.Key<String> MESSAGE_KEY = Status.MESSAGE_KEY;
  public static final Metadata.Key<Status> CODE_KEY = Status.CODE_KEY;
  public static StatusRuntimeException asRuntimeExceptionWithoutStacktrace(Status s, Metadata t) {
    return new StatusRuntimeException(s, t);
  }
  public static StatusRuntimeException asRuntimeException(Status s, Metadata t, boolean f) {
    return new StatusRuntimeException(s, t);
  }
}
"""


@contextlib.contextmanager
def start_google_emulator(options: str = "-Xmx512m") -> Iterator[str]:
    """Run the emulator on a free port; yield ``127.0.0.1:PORT``, kill it afterwards.

    ``options`` are Java's; the variable ``JAVA_OPTS`` is before them. If it has ended before, that
    is a failure, with what it said: the tests that missed it can't say why.
    """
    jar = _find_jar()
    java = shutil.which("java")
    if java is None:
        _give_up("java is not installed")
    classes = _compile_shim(jar)
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [
                *(
                    java,
                    *os.environ.get("JAVA_OPTS", options).split(),
                    "-cp",
                    f"{classes}{os.pathsep}{jar}",
                    MAIN_CLASS,
                ),
                *("--host=127.0.0.1", f"--port={port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"127.0.0.1:{port}"
            wait_until(
                lambda: _answers(address) or process.poll() is not None,
                what=f"Google's emulator on {address}",
            )
            if process.poll() is not None:
                log.seek(0)
                pytest.fail(f"Google's emulator ended at once:\n{log.read().decode()[-2000:]}")
            yield address
            if (status := process.poll()) is not None:
                log.seek(0)
                said = log.read().decode(errors="replace")[-2000:]
                pytest.fail(f"Google's emulator ended meanwhile, exit status {status}:\n{said}")
        finally:
            process.kill()
            process.wait()


def google_emulator() -> Iterator[str]:
    """Serve as the body of a session fixture::

    google_emulator_host = pytest.fixture(scope="session")(google_emulator)
    """
    with start_google_emulator(LIGHT) as address:
        yield address


def reset_google_emulator(address: str) -> None:
    """Drop all topics and subscriptions; open streams are aborted."""
    request = urllib.request.Request(f"http://{address}/reset", method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE):
        pass


@functools.cache
def _find_jar() -> Path:
    try:
        listing = subprocess.run(
            ["dpkg", "-L", PACKAGE], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        _give_up(f"Debian's package {PACKAGE} is not installed")
    jars = [line for line in listing.splitlines() if line.endswith("-all.jar")]
    if not jars:
        _give_up(f"{PACKAGE} has no *-all.jar")
    return Path(jars[0])


def _compile_shim(jar: Path) -> Path:
    """Return a folder with the compiled class; compiled once a jar and shim text."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir())
    key = hashlib.sha256((_SHIM + str(jar)).encode()).hexdigest()[:12]
    folder = cache / f"convotic-google-emulator-{jar.stem}-{key}-{os.getuid()}"
    if folder.is_dir():
        return folder
    javac = shutil.which("javac")
    if javac is None:
        _give_up("javac is not installed")
    draft = Path(tempfile.mkdtemp(dir=cache))
    source = draft / "io" / "grpc" / "InternalStatus.java"
    source.parent.mkdir(parents=True)
    source.write_text(_SHIM)
    command = [javac, "--release", "17", "-cp", str(jar), "-d", str(draft), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        draft.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(draft)
    return folder


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _give_up(reason: str) -> NoReturn:
    text = f"Google's emulator can't run: {reason}."
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)
