"""A worker without a writable folder for temporary files, as Kubernetes' readOnlyRootFilesystem."""

from __future__ import annotations

from pathlib import Path

from tests.support.mounts import start_worker_with_mounts
from tests.support.waiting import PATIENCE, wait_until

#: In a mount namespace of its own: nothing is changed for others.
READ_ONLY = """
for folder in /tmp /var/tmp /usr/tmp; do
  if [ -d "$folder" ]; then
    mount --bind "$folder" "$folder" && mount -o remount,bind,ro "$folder"
  fi
done
cd /proc
exec "$@"
"""


def test_a_worker_runs_without_a_writable_folder(tmp_path: Path, our_emulator: str) -> None:
    """It is ready, warns once with what to mount, and ends as any other."""
    log = tmp_path / "worker.log"
    environment = {
        "CONVOTIC_MODULES": "convotic_order_processor",
        "CONVOTIC_BROKER_URL": "pubsub://read-only",
        "CONVOTIC_REDIS_URL": "redis://127.0.0.1:1",
        "PUBSUB_EMULATOR_HOST": our_emulator,
    }
    worker = start_worker_with_mounts(READ_ONLY, environment, log)
    try:
        for said in (" ready.", "Mount something writable at /tmp"):
            wait_until(lambda said=said: said in log.read_text(), what=said)  # type: ignore[misc]  # mypy does not infer a lambda with a default
    finally:
        worker.terminate()
        worker.wait(PATIENCE)

    text = log.read_text()
    assert worker.returncode == 0
    assert text.count("Mount something writable at /tmp") == 1
    assert "Traceback" not in text
    assert "Connection to broker lost" not in text
