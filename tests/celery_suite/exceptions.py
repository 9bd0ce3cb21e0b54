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

_EVERYWHERE = {
    "test_task_replacement::test_replaced_task_nesting_level_0": _RACE,
}

_BY_BROKER: dict[str, dict[str, str]] = {"ours": {}, "google": {}, "redis": {}}


def reason_for(broker: str, test: str) -> str:
    """Return why ``test`` (``module.class::name``) may fail on ``broker``; "" when it must not."""
    for end, reason in (_EVERYWHERE | _BY_BROKER[broker]).items():
        if test.endswith(end):
            return reason
    return ""
