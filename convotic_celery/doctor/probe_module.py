"""The probe's handler, and the worker that runs it: ``python -m`` this with the probe's token."""

from __future__ import annotations

import sys

from convotic_celery import ConvoticContext, ConvoticModule, DeadLetter, WorkerMessage

__all__ = ["NAME", "TOPIC_PREFIX", "make_module"]

NAME = "doctor"
TOPIC_PREFIX = "convotic.doctor."


def make_module(token: str) -> ConvoticModule:
    """Return a module whose handler fails until its message is replayed."""
    module = ConvoticModule(name=NAME, version="1.0.0")

    @module.worker(f"{TOPIC_PREFIX}{token}", max_retries=0, ack_deadline=10)
    async def probe(message: WorkerMessage, ctx: ConvoticContext) -> None:
        if not ctx.is_replay:
            raise DeadLetter("the doctor's probe fails until it is replayed")
        await ctx.storage.set(token, message.id)

    return module


def main(token: str) -> None:
    """Run a worker for the probe alone, until it is ended."""
    from convotic_celery.app import ConvoticApp  # noqa: PLC0415  for this process only
    from convotic_celery.settings import Settings  # noqa: PLC0415

    settings = Settings(provision="create", remote_control=False, middleware=[], services=None)
    app = ConvoticApp(settings, make_module(token).collect_handlers())
    app.conf.worker_send_task_events = False
    app.worker_main(
        [
            "worker",
            "--loglevel=WARNING",
            "--without-mingle",
            "--without-gossip",
            f"--hostname=doctor-{token}@%h",
            f"--queues={app.definitions[0].queue}",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1])
