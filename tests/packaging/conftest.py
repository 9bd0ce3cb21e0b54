"""The wheels of this checkout, and environments where nothing else of it is."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from convotic_local import FileLock
from tests.packaging.support import DISTRIBUTIONS, ROOT

_PATIENCE_SECONDS = 600

#: It needs root, buildah and some minutes: ``make images``.
collect_ignore = [] if "PACKAGING_IMAGES" in os.environ else ["test_images.py"]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the test processes of this session share: what takes long is made once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "packaging"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def made_once(folder: Path) -> Iterator[bool]:
    """Give True to the first of several processes; the others wait until it has left."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock"), wait_seconds=_PATIENCE_SECONDS):
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def wheels(shared: Path) -> dict[str, Path]:
    """Wheels by distribution, built from the sdists of this checkout, as they would be published.

    ``PACKAGING_DIST`` names a folder of wheels to test instead; ``make wheel`` does so.
    """
    given = os.environ.get("PACKAGING_DIST")
    folder = Path(given) if given else shared / "dist"
    with made_once(shared / "dist") as is_first:
        for each in DISTRIBUTIONS.values() if is_first and not given else ():
            options = ["--no-isolation", "--outdir", str(folder), str(ROOT / each.folder)]
            command = [sys.executable, "-m", "build", *options]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stdout + built.stderr
    found = {path.name.split("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}
    assert set(found) == set(DISTRIBUTIONS)
    return found


@pytest.fixture(scope="session")
def environment_of(wheels: dict[str, Path], shared: Path) -> Callable[[str], Path]:
    """Return fresh virtual environments: one distribution, with the versions of constraints.txt."""

    def environment(name: str) -> Path:
        folder = shared / f"venv-{name}"
        with made_once(folder) as is_first:
            if is_first:
                _install(folder, name, wheels[name].parent)
        return folder

    return environment


def _install(folder: Path, name: str, dist: Path) -> None:
    venv.create(folder, with_pip=True, clear=True)
    command = [
        *(str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"),
        *("--retries", "10", "--timeout", "30"),
        *("--constraint", str(ROOT / "constraints.txt"), "--find-links", str(dist), name),
    ]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr


@pytest.fixture(scope="session")
def environment(environment_of: Callable[[str], Path]) -> Path:
    """A fresh virtual environment with the framework and what it depends on."""
    return environment_of("convotic-celery")
