"""What a worker says of itself and of its runs: on a terminal, and where there is none."""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.support.waiting import PATIENCE, wait_until


class Terminal:
    """A worker on a terminal of its own, and what it has written there."""

    def __init__(self, stage: Stage, *arguments: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *arguments],
            cwd=stage.folder,
            env=os.environ | stage.environment | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._parts: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All of it, as the terminal shows it, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.raw)

    @property
    def raw(self) -> str:
        """All of it, as it was written."""
        return "".join(self._parts).replace("\r\n", "\n")

    def wait_for(self, pattern: str) -> str:
        """Return the line once there is one that fits."""
        found = wait_until(
            lambda: re.search(rf"^(.*(?:{pattern}).*)\n", self.text, re.MULTILINE),
            what=f"{pattern!r} on the terminal",
        )
        assert found is not None
        return found[1]

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                return
            self._parts.append(decoder.decode(part))


@contextmanager
def on_terminal(stage: Stage, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """Run a worker on a terminal for the block."""
    command = arguments or ("celery", "-A", "convotic_celery", "worker")
    terminal = Terminal(stage, *command, **environment)
    try:
        terminal.wait_for(r"ready\.$")
        yield terminal
    finally:
        terminal.process.terminate()
        try:
            terminal.process.wait(PATIENCE)
        finally:
            terminal.process.kill()


def test_a_worker_on_a_terminal_says_what_it_does(embedded_stage: Stage) -> None:
    """Without flags: what it consumes, each run, each failure with its line, each dead letter."""
    with on_terminal(embedded_stage) as terminal:
        good = embedded_stage.publish_json({"n": 1})
        bad = embedded_stage.publish_json({"fail": 1})
        dead = terminal.wait_for("✗")

    text = terminal.text
    assert text.count(QUEUE + " ") >= 1
    assert re.search(rf"modules +shop 1\.0\.0  {embedded_stage.folder}/modules/shop\.py", text)
    assert str(embedded_stage.data_dir) in text
    assert re.search(r"pages +http://127\.0\.0\.1:\d+/", text)
    assert "convotic.workflow" not in text
    assert "mingle" not in text
    assert re.search(rf"^\d\d:\d\d:\d\d ✓ {QUEUE} {good} [\d.]+ m?s$", text, re.MULTILINE)
    first, *_ = re.findall(rf"^.* ↻ {QUEUE} {bad} run 1 of 3 failed .*$", text, re.MULTILINE)
    assert re.search(r"again in \d+ s at \d\d:\d\d:\d\d: RuntimeError: this order always", first)
    below = text.partition(f"{first}\n")[2].splitlines()
    assert below[0].strip() == "Traceback (most recent call last):"
    assert re.search(r'modules/shop\.py", line \d+, in process_order$', below[1])
    assert text.count("Traceback (most recent call last)") == 1
    assert dead.endswith(
        "dead letter after 3 runs, max-retries-exceeded: RuntimeError: this order always fails "
        f"(convotic dlq show {bad})"
    )
    assert "\x1b[32m✓" in terminal.raw


def test_a_level_of_the_settings_holds_in_a_worker(embedded_stage: Stage) -> None:
    """And --loglevel takes precedence; without colours where NO_COLOR is set."""
    quiet = {"CONVOTIC_LOG_LEVEL": "ERROR", "NO_COLOR": "1"}
    command = ("celery", "-A", "convotic_celery", "worker", "--loglevel", "DEBUG")
    with on_terminal(embedded_stage, *command, **quiet) as terminal:
        embedded_stage.publish_json({"n": 1})
        terminal.wait_for(rf"✓ {QUEUE}")
    assert "\x1b[" not in terminal.raw

    silent = Terminal(embedded_stage, *command[:-2], **quiet)
    embedded_stage.publish_json({"n": 2})
    wait_until(lambda: len(embedded_stage.read_runs("end")) >= 2)
    silent.process.terminate()
    silent.process.wait(PATIENCE)
    assert "ready." not in silent.text
    assert "✓" not in silent.text


def test_a_warm_shutdown_says_what_it_waits_for(embedded_stage: Stage) -> None:
    """Handler, message, and for how long it has run."""
    options = json.dumps({TOPIC: {"ack_deadline": 110}})
    with on_terminal(embedded_stage, CONVOTIC_HANDLER_OPTIONS=options) as terminal:
        slow = embedded_stage.publish_json({"until": "seen"})
        wait_until(lambda: embedded_stage.read_runs("start"))
        terminal.process.send_signal(signal.SIGTERM)
        line = terminal.wait_for("Stopping")
        (embedded_stage.folder / "seen").touch()
        terminal.process.wait(PATIENCE)

    assert re.search(rf"waiting for 1 run: {QUEUE} {slow} \(\d+ of 110 s\)$", line)


def test_lines_of_several_processes_say_whose_they_are(embedded_stage: Stage) -> None:
    """With --processes, the name of each worker."""
    command = ("convotic_celery.cli", "worker", "--processes", "2")
    with on_terminal(embedded_stage, *command) as terminal:
        embedded_stage.publish_json({"n": 1})
        line = terminal.wait_for("✓")

    assert re.match(rf"\d\d:\d\d:\d\d celery[12] ✓ {QUEUE} ", line)


def test_without_a_terminal_lines_are_cloud_logging_s(embedded_stage: Stage) -> None:
    """One JSON object each, its message id a label, the error's own traceback in its place."""
    with embedded_stage.worker() as worker:
        bad = embedded_stage.publish_json({"fail": 1})
        wait_until(lambda: "dead letter after 3 runs" in worker.read_log())

    lines = [json.loads(line) for line in worker.read_log().splitlines() if line.startswith("{")]
    runs = [line for line in lines if line["logger"] == "convotic.runs"]
    assert [line["severity"] for line in runs] == ["WARNING", "WARNING", "ERROR"]
    label = {"handler": QUEUE, "message_id": bad}
    assert all(line["logging.googleapis.com/labels"] == label for line in runs)
    assert "process_order" in runs[0]["stack_trace"]
    assert "convotic_celery" not in runs[0]["stack_trace"]
    (start,) = [line for line in lines if line["message"].endswith(" starts")]
    assert start["handlers"] == ["custom.orders.new.shop", "custom.orders.plain.shop"]
    assert start["data_folder"] == str(embedded_stage.data_dir)


def test_failures_alone_are_logged_where_that_is_asked_for(embedded_stage: Stage) -> None:
    """CONVOTIC_LOG_RUNS=failures; and CONVOTIC_LOG_FORMAT=celery gives Celery's lines back."""
    with embedded_stage.worker(CONVOTIC_LOG_RUNS="failures") as worker:
        embedded_stage.publish_json({"n": 1})
        bad = embedded_stage.publish_json({"fail": 1})
        wait_until(lambda: f"{bad} run 1 of 3 failed" in worker.read_log())
    assert "succeeded in" not in worker.read_log()

    with embedded_stage.worker(CONVOTIC_LOG_FORMAT="celery") as worker:
        embedded_stage.publish_json({"n": 2})
        wait_until(lambda: re.search(r"INFO/\w+\] Task .* succeeded in", worker.read_log()))
    assert "✓" not in worker.read_log()
