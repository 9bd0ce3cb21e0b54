"""Schedules, published by a real beat and run by a real worker."""

from __future__ import annotations

import os

from convotic_celery.cli.demo.child import Child
from tests.acceptance.stage import Stage
from tests.support.waiting import wait_until

MODULE = """
from convotic_celery import ConvoticModule
from shop import record

module = ConvoticModule(name="clock", version="1.0.0")
module.schedule(every=1, topic="custom.orders.plain", data={"from": "beat"})


@module.schedule(every=1, name="tick", data={"n": 1})
async def on_tick(message, ctx):
    record(message, "tick")
"""


def test_beat_publishes_what_workers_run(embedded_stage: Stage) -> None:
    """Again and again, to a handler of its own and to a topic; beat says what it has."""
    (embedded_stage.folder / "modules" / "clock.py").write_text(MODULE)
    log = embedded_stage.folder / "beat.log"
    beat = Child(
        ["celery", "-A", "convotic_celery", "beat", "--loglevel", "INFO"],
        environment=os.environ | embedded_stage.environment,
        log=log,
        cwd=embedded_stage.folder,
    )
    with embedded_stage.worker(), beat:
        ticks = wait_until(lambda: embedded_stage.read_runs("tick")[1:], what="two ticks")
        plain = wait_until(
            lambda: [r for r in embedded_stage.read_runs("end") if r["data"] == {"from": "beat"}],
            what="a message on the topic",
        )

    assert ticks[0]["data"] == {"n": 1}
    assert ticks[0]["attributes"] == {"schedule": "clock.tick"}
    assert plain[0]["attributes"] == {"schedule": "clock.custom.orders.plain"}
    assert "Schedule clock.tick: every 1 s -> schedule.tick.clock" in log.read_text()
