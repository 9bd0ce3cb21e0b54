"""Tests of Celery's suite that may fail here, each with its reason (docs/celery-suite.md)."""

from __future__ import annotations

__all__ = ["IGNORED_FILES", "reason_for"]

#: Not collected, whatever the broker.
IGNORED_FILES = {
    "t/integration/test_backend.py": "needs an Azure account; tests a result backend only",
}

_RACE = (
    "the test's own race: it sets assertion_result = False after delay(), and the worker may have "
    "received the task by then; the faster the broker, the likelier"
)

_OTHER_APP = (
    "fails wherever the session's worker was started by an earlier test: the Django tests of the "
    "same file start a second worker in this process, which forbids result.get() for good"
)
_RABBITMQ = (
    "made for RabbitMQ, and marked so for Redis: its signal handler publishes a Signal object as a "
    "property, which py-amqp drops and no JSON envelope can carry"
)

_CHORD = (
    "a race of Celery's Redis backend: only publishing the last header task takes back the mark "
    "'done' of the first run, so a first task that has run by then is not counted. Where a publish "
    "is confirmed by a server it may have; else hardly"
)
_CHANNELS = (
    "run after test_canvas.py, it finds the result channels that those tests left open in the "
    "process; the same on Redis"
)

_OVERTAKEN = (
    "order and task travel on two topics, in no common order. Google's emulator answers a Pull at "
    "once or some 50 ms late, so what is sent 10 ms later may come first; the repeats then fail on "
    "what the first try left (results by the same id, ETA tasks)"
)

_EVERYWHERE = {
    "test_redis_backend::test_pubsub_subscribe_churn_while_draining": _CHANNELS,
    "test_redis_backend::test_pubsub_reentrant_cancel_from_finalizer": _CHANNELS,
    "test_task_replacement::test_replaced_task_nesting_level_0": _RACE,
    "test_worker::test_pidbox_reset_after_repeated_control_errors": _OTHER_APP,
}

_PUBSUB = {
    "test_chord::test_reapplying_frozen_chord_dispatches_body_again": _CHORD,
    "test_chord_header_id_duplicated_on_rabbitmq_msg_duplication[redis-group-ids]": _RABBITMQ,
}

_GOOGLE = {
    "test_Inspect::test_scheduled": _OVERTAKEN,
    "test_tasks::test_revoked_by_headers_complex_canvas": _OVERTAKEN,
}

_BY_BROKER = {"ours": _PUBSUB, "google": _PUBSUB | _GOOGLE, "redis": {}}


def reason_for(broker: str, test: str) -> str:
    """Return why ``test`` (``module.class::name``) may fail on ``broker``; "" when it must not."""
    for end, reason in (_EVERYWHERE | _BY_BROKER[broker]).items():
        if test.endswith(end):
            return reason
    return ""
