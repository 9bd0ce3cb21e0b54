"""Take a worker away a hundred times under load; print what became of the messages.

``python -m tests.scale_in [--times 100] [--workers 6] [--at-once 3]``

The exit status is 1 when a message was lost, one that fits into the grace began twice, an attempt
was used, or a worker had to be killed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.stage import make_stage
from tests.conftest import end_servers
from tests.scale_in.trial import Trial


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="tests.scale_in")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--at-once", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="convotic-scale-in-"))
    data_dir = folder / "data"
    stage = make_stage(folder, data_dir, None)
    trial = Trial(stage, workers=options.workers)
    try:
        with trial.load():
            while (done := trial.verdict.scale_ins) < options.times:
                trial.scale_in(min(options.at_once, options.times - done))
                say(f"{trial.verdict.scale_ins} of {options.times}")
        verdict = trial.judge()
    finally:
        trial.stop()
        end_servers(data_dir)
    say(verdict.show())
    if verdict.holds:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    say(f"lost {verdict.lost}, repeated {verdict.repeated}, burnt {verdict.burnt}")
    say(f"logs and record stay in {folder}")
    return 1


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())
