"""`convotic check`: everything loads, or each fault is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GOOD = """
from convotic_celery import ConvoticModule, SyncConvoticContext, WorkerMessage

module = ConvoticModule(name="good", version="1.0.0")


@module.worker("custom.good")
def handle(message: WorkerMessage, ctx: SyncConvoticContext) -> None: ...


module.schedule("0 3 * * *", topic="custom.good")
"""


def check(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: modules are imported once a process."""
    return subprocess.run(
        [sys.executable, "-m", "convotic_celery.cli", "check", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def write(folder: Path, **modules: str) -> None:
    """Write modules."""
    (folder / "modules").mkdir()
    for name, text in modules.items():
        (folder / "modules" / f"{name}.py").write_text(text)


def test_what_loads_exits_with_0(tmp_path: Path) -> None:
    """And says what there is."""
    write(tmp_path, good=GOOD)

    done = check(tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Everything loads: 1 module, 1 handler, 0 routes, 1 schedule.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["modules"]  # nothing was started


def test_each_fault_is_shown_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    """One broken module does not hide the next, nor what is wrong with the settings."""
    wrong = GOOD.replace('"custom.good")', '"custom.good", max_retrys=1)').replace('"good"', '"w"')
    write(
        tmp_path,
        good=GOOD,
        missing="import not_there",
        syntax="\nx = (",
        wrong=wrong,
        other="1/0",
        nothing="",
    )

    options = '{"custom.goood": {}}'
    done = check(tmp_path, "--json", CONVOTIC_HANDLER_OPTIONS=options, CONVOTIC_ENV="production")
    found = json.loads(done.stdout)
    faults: dict[str, Any] = {fault["where"]: fault for fault in found["faults"]}

    assert done.returncode == 1
    assert list(faults) == [
        "",
        "modules/missing.py:1",
        "modules/other.py:1",
        "modules/syntax.py:2",
        "modules/wrong.py:7",
    ]
    assert faults["modules/missing.py:1"]["code"] == "import not_there"
    assert "pip install" in faults["modules/missing.py:1"]["advice"]
    assert "did you mean 'max_retries'?" in faults["modules/wrong.py:7"]["what"]
    assert "ZeroDivisionError" in faults["modules/other.py:1"]["what"]
    texts = [fault["what"] for fault in found["faults"]]
    assert "CONVOTIC_ENV is production" in texts[0]
    assert "Did you mean 'custom.good'?" in texts[-1]
    assert "nothing has no ConvoticModule" in found["warnings"][0]
    assert found["handlers"] == 1


def test_wrong_settings_are_a_fault(tmp_path: Path) -> None:
    """For a person it is text on standard error."""
    done = check(tmp_path, CONVOTIC_LOG_LEVEL="loud")

    assert done.returncode == 1
    assert "CONVOTIC_LOG_LEVEL" in done.stderr
    assert "1 fault; what loads: 0 modules" in done.stdout
