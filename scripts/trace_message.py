"""Print the files that a message passes on its three ways, as docs/architecture.md walks them.

A publish, a message that succeeds, and one that raises, is delivered again and becomes a dead
letter. Each runs in a real worker on the embedded emulator, under a profiler that records the first
call into each of our files on the threads that the message passes.

Usage: ``python scripts/trace_message.py`` (a quarter of a minute).
"""

# ruff: noqa: INP001, T201, S603 - a program, which prints and starts our own commands

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGES = ("convotic_celery", "convotic_pubsub")
#: The message's threads in a worker: what the others do meanwhile (task events) is not its way.
THREADS = ("convotic-pubsub-io", "convotic-pool")
TOPIC = "trace.orders"
MODULE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import trace_message
trace_message.record_in_worker()
from celery.signals import celeryd_init
@celeryd_init.connect(weak=False)
def send_no_events(conf, **_):
    conf.worker_send_task_events = False
from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage
module = ConvoticModule(name="traced", version="1")
@module.worker({TOPIC!r}, max_retries=1, ack_deadline=2)
async def handle(message: WorkerMessage, ctx: ConvoticContext) -> None:
    if message.data["fails"]:
        raise ValueError("as asked")
"""
QUIET = ("--without-heartbeat", "--without-gossip", "--without-mingle", "--loglevel", "ERROR")

#: File, to the time of its first call, the thread and the function.
Seen = dict[str, tuple[float, str, str]]
_seen: Seen = {}
_threads: tuple[str, ...] = ("MainThread",)


def _profile(frame: FrameType, event: str, _argument: Any) -> None:
    path = frame.f_code.co_filename
    package = next((each for each in PACKAGES if f"/{each}/" in path), None)
    thread = threading.current_thread().name
    if event != "call" or package is None or not thread.startswith(_threads):
        return
    file = path[path.rindex(f"/{package}/") + 1 :]
    if file not in _seen:
        _seen[file] = (time.monotonic(), thread, frame.f_code.co_qualname)


def record_in_worker() -> None:
    """Record from now on; write down what was seen whenever the file ``wanted`` appears."""
    if not os.environ.get("TRACE_MESSAGE"):
        return
    global _threads  # noqa: PLW0603 - one process, one recording
    _threads = THREADS
    threading.Thread(target=_answer_files, daemon=True).start()
    threading.setprofile(_profile)
    sys.setprofile(_profile)


def _answer_files() -> None:
    sys.setprofile(None)
    wanted, written = Path("wanted"), Path("written")
    while True:
        if wanted.exists():
            written.write_text(json.dumps(_seen))
            _seen.clear()
            wanted.unlink()
        threading.Event().wait(0.02)


def _take() -> Seen:
    """Return what the worker has seen since the last call."""
    Path("wanted").touch()
    while Path("wanted").exists():
        threading.Event().wait(0.02)
    found: Seen = json.loads(Path("written").read_text())
    return found


def _show(way: str, seen: Seen) -> None:
    print(f"\n{way}: {len(seen)} files")
    for file, (_, thread, function) in sorted(seen.items(), key=lambda each: each[1]):
        print(f"  {thread:20.20} {file:55} {function}")


def main() -> None:
    """Start a worker in a folder of its own, and trace it."""
    os.chdir(tempfile.mkdtemp(prefix="trace-"))
    Path("modules").mkdir()
    Path("modules/traced.py").write_text(MODULE)
    celery = [sys.executable, "-m", "celery", "-A", "convotic_celery"]
    worker = subprocess.Popen(
        [*celery, "worker", *QUIET],
        env=os.environ | {"TRACE_MESSAGE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        from convotic_celery import pubsub  # noqa: PLC0415 - not in the worker, which traces it

        pubsub.publish(TOPIC, data={"fails": False})
        threading.Event().wait(8)
        pubsub.publish(TOPIC, data={"fails": False})
        _seen.clear()
        sys.setprofile(_profile)
        pubsub.publish(TOPIC, data={"fails": False})
        sys.setprofile(None)
        _show("publish", _seen)
        for way, fails, seconds in (("success", False, 1.0), ("failure", True, 6.0)):
            threading.Event().wait(2)
            _take()
            pubsub.publish(TOPIC, data={"fails": fails})
            threading.Event().wait(seconds)
            _show(way, _take())
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
