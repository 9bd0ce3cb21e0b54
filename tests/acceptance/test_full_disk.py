"""A data folder without room: the worker says so, and ends when it is asked to."""

from __future__ import annotations

from pathlib import Path

from tests.support.mounts import start_worker_with_mounts
from tests.support.waiting import PATIENCE, wait_until

#: The data folder on a disk of its own, smaller than what the emulator keeps free.
SMALL_DISK = """
mount -t tmpfs -o size=10m,mode=700 tmpfs "$CONVOTIC_DATA_DIR" && exec "$@"
"""


def test_a_worker_without_room_says_so_and_ends(tmp_path: Path) -> None:
    """It is ready all the same; SIGTERM ends it, although nothing can be published."""
    log, data_dir = tmp_path / "worker.log", tmp_path / "data"
    data_dir.mkdir()
    environment = {
        "CONVOTIC_DATA_DIR": str(data_dir),
        "CONVOTIC_EMULATOR_IDLE_TIMEOUT": "5",
        "CONVOTIC_MODULES": "convotic_order_processor",
    }
    worker = start_worker_with_mounts(SMALL_DISK, environment, log)
    try:
        wait_until(lambda: " ready" in log.read_text(), what="the worker is ready")
        # They are asked in the background.
        why = "Other workers can't be asked for revoked tasks"
        wait_until(lambda: why in log.read_text(), what=why)
    finally:
        worker.terminate()
        worker.wait(PATIENCE)

    text = log.read_text()
    assert worker.returncode == 0
    assert "The disk has less than 16 MiB free" in text
    assert "Traceback" not in text
    assert "can't be started" not in text
