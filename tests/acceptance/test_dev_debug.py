"""`convotic dev --debug`: breakpoints in the terminal, and in VS Code once that is attached."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from convotic_celery.cli.new.templates import LAUNCH
from tests.acceptance.commands import convotic
from tests.acceptance.dev import Dev
from tests.support.dap import Debugger
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

MODULE = """
from convotic_celery import ConvoticContext, ConvoticModule, WorkerMessage

module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("custom.orders.new", ack_deadline=1)
async def process_order(message: WorkerMessage, ctx: ConvoticContext) -> None:
    breakpoint()
    number = message.data["id"]
    print("finished", number, flush=True)
"""
LAST_LINE = MODULE.splitlines().index('    print("finished", number, flush=True)') + 1


def test_breakpoints_stop_where_somebody_looks(embedded_stage: Stage) -> None:
    """For longer than the ack deadline, and each message runs once; also after a reload."""
    stage, port = embedded_stage, free_port()
    source = stage.folder / "modules" / "shop.py"
    source.write_text(MODULE)
    with Dev(stage.folder, "--debug", "--debug-port", str(port), **stage.environment) as dev:
        dev.wait_for("✓ ready")
        convotic(stage, "publish", "custom.orders.new", '{"id": 7}')
        dev.wait_for("(Pdb)")
        dev.type("p message.data")
        dev.wait_for("{'id': 7}")
        dev.type("import time; time.monotonic() and __import__('threading').Event().wait(3)")
        dev.wait_for("(Pdb)", times=3)
        dev.type("c")
        dev.wait_for("finished 7")

        look_with_vs_code(stage, dev, port, number=8)
        source.write_text(MODULE.replace('"finished"', '"ended"'))
        dev.wait_for("✓ reloaded")
        look_with_vs_code(stage, dev, port, number=9)

    assert dev.text.count("(Pdb)") == 3
    assert [dev.text.count(each) for each in ("finished 7", "finished 8", "ended 9")] == [1, 1, 1]
    assert "has blocked the event loop" not in dev.text
    assert dev.process.returncode == 0


def look_with_vs_code(stage: Stage, dev: Dev, port: int, *, number: int) -> None:
    """Attach, stop at breakpoint() and at a breakpoint of the editor's, go on, detach."""
    path = str(stage.folder / "modules" / "shop.py")
    with Debugger(port) as debugger:
        debugger.attach({path: [LAST_LINE]})
        convotic(stage, "publish", "custom.orders.new", json.dumps({"id": number}))
        thread, frame = debugger.wait_until_stopped()
        assert frame["source"]["path"] == path
        assert debugger.evaluate("message.data", frame) == f"{{'id': {number}}}"
        debugger.request("continue", threadId=thread)
        thread, frame = debugger.wait_until_stopped()
        assert frame["line"] == LAST_LINE
        assert debugger.evaluate("number", frame) == str(number)
        debugger.request("continue", threadId=thread)
        dev.wait_for(f" {number}\n")


def test_launch_json_attaches_where_dev_listens() -> None:
    """What `convotic new` writes for VS Code names the port that `--debug` has by default."""
    attach = json.loads(LAUNCH)["configurations"][0]

    assert attach["request"] == "attach"
    assert attach["connect"] == {"host": "127.0.0.1", "port": 5678}
