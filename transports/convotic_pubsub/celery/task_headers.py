"""The types of a Celery task's headers and body, by its message protocol 2. Pure.

Celery itself looks at them only when it uses them. That is too late for some: after a slot of the
pool was taken, which is then never free again, or in a timer, which ends the worker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["check_body", "check_task"]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_limit(value: object) -> bool:
    return value is None or (
        isinstance(value, int | float) and _is_number(value) and value >= 0 and math.isfinite(value)
    )


def _is_pair_of_limits(value: object) -> bool:
    return isinstance(value, list) and len(value) in {0, 2} and all(map(_is_limit, value))


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


_Check = tuple[Callable[[object], bool], str]
_TEXT: _Check = (_is_text, "text")
_COUNT: _Check = (_is_count, "a whole number")
_MAPPING: _Check = (_is_mapping, "an object")

#: https://docs.celeryq.dev/en/stable/internals/protocol.html; null stands for absent everywhere.
_HEADERS: dict[str, _Check] = {
    **dict.fromkeys(("task", "id", "lang", "root_id", "parent_id", "group", "shadow"), _TEXT),
    **dict.fromkeys(("eta", "expires", "argsrepr", "kwargsrepr", "origin"), _TEXT),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), _COUNT),
    "timelimit": (_is_pair_of_limits, "two numbers of seconds"),
    "stamped_headers": (_is_list_of_texts, "a list of texts"),
    "stamps": _MAPPING,
}
_PROPERTIES: dict[str, _Check] = {
    "correlation_id": _TEXT,
    "reply_to": _TEXT,
    "priority": (_is_number, "a number"),
    "delivery_info": _MAPPING,
}


def check_task(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    """Check a task's headers and properties; what is no task passes.

    Raises:
        ValueError: The text says what is wrong.
    """
    if "task" not in headers or "id" not in headers:
        return
    if not headers["task"] or not headers["id"]:
        raise ValueError("not a Celery task: its name or id is empty")
    for kind, checks, given in (
        ("header", _HEADERS, headers),
        ("property", _PROPERTIES, properties),
    ):
        for name, (is_valid, expected) in checks.items():
            value = given.get(name)
            if value is not None and not is_valid(value):
                raise ValueError(f"not a Celery task: the {kind} {name!r} must be {expected}")


def check_body(body: object) -> None:
    """Check the decoded body of a task: its arguments, and what travels with them.

    Raises:
        ValueError: It is neither [args, kwargs, embed] nor an object of protocol 1.
    """
    if isinstance(body, dict):
        return
    kinds = (list | tuple, dict, dict | None)
    if not (
        isinstance(body, list | tuple)
        and len(body) == len(kinds)
        and all(isinstance(part, kind) for part, kind in zip(body, kinds, strict=True))
    ):
        raise ValueError("not a Celery task: its body is not [arguments, keyword arguments, more]")
