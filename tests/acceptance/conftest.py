"""Where acceptance tests play: a worker's folder, with the embedded broker or Google's emulator."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, make_stage

NODE_SOURCE = Path(__file__).parent / "node"


@pytest.fixture(params=["embedded", pytest.param("google", marks=pytest.mark.google_emulator)])
def stage(request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path) -> Stage:
    """A stage on each of the two brokers in turn."""
    address = request.getfixturevalue("google_emulator") if request.param == "google" else None
    return make_stage(tmp_path, data_dir, address)


@pytest.fixture
def embedded_stage(tmp_path: Path, data_dir: Path) -> Stage:
    """A stage on the embedded broker, for what does not depend on the broker."""
    return make_stage(tmp_path, data_dir, None)


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """What Node needs, installed once for each package-lock.json, outside the repository."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node or npm is not installed")
    lock_hash = hashlib.sha256((NODE_SOURCE / "package-lock.json").read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "convotic-node" / lock_hash
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # sessions side by side share it
        if not (folder / "installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(NODE_SOURCE / name, folder)
            npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=8"]
            done = subprocess.run(
                npm, cwd=folder, capture_output=True, text=True, timeout=240, check=False
            )
            assert done.returncode == 0, done.stderr
            (folder / "installed").touch()
    return folder
