"""Names of one handler's resources, and the rules they obey. Pure: no I/O.

================================  =========================================================
topic                             ``T``, e.g. ``custom.orders.new``
queue, task, subscription         ``T.M``, or ``T.M.NAME`` for a handler registered with a name
dead-letter topic and its         ``T.M.dead-letter``
subscription
================================  =========================================================
"""

from __future__ import annotations

import re

from convotic_celery.errors import ModuleError

__all__ = [
    "DEAD_LETTER_SUFFIX",
    "MAX_FILTER_BYTES",
    "TARGET_ATTRIBUTE",
    "build_filter",
    "check_handler_name",
    "check_module_name",
    "check_resource_name",
    "dead_letter_topic_of",
    "queue_of",
    "resource_name_problem",
]

DEAD_LETTER_SUFFIX = "dead-letter"

#: Attribute that addresses a message to one handler of its topic; the value is the handler's queue.
TARGET_ATTRIBUTE = "convotic-target"

#: Longest filter expression, https://cloud.google.com/pubsub/docs/subscription-message-filter
MAX_FILTER_BYTES = 256

#: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_RESOURCE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_RESOURCE_RULE = (
    "3 to 255 characters, the first a letter, the rest letters, digits and -_.~+%, not beginning "
    'with "goog"'
)
_PART_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PART_RULE = (
    f'a letter, then letters, digits, "_" and "-" (no dots), and not "{DEAD_LETTER_SUFFIX}"'
)


def resource_name_problem(name: str) -> str | None:
    """Return the rule that ``name`` breaks as a topic or subscription, or None."""
    if _RESOURCE_NAME.fullmatch(name) and not name.startswith("goog"):
        return None
    return f"Pub/Sub's rule is: {_RESOURCE_RULE}"


def check_resource_name(kind: str, name: str) -> str:
    """Return ``name``, or raise ModuleError if Pub/Sub would refuse it as a ``kind``."""
    problem = resource_name_problem(name)
    if problem:
        raise ModuleError(
            f"{kind} {name!r} ({len(name)} characters) is not a valid name: {problem}."
        )
    return name


def check_module_name(name: str) -> str:
    """Return ``name``, or raise ModuleError: it becomes a part of queue and subscription names."""
    return _check_part("module name", name)


def check_handler_name(name: str) -> str:
    """Return ``name``, or raise ModuleError: it becomes the last part of the queue's name."""
    return _check_part("handler name", name)


def _check_part(kind: str, name: str) -> str:
    if not _PART_NAME.fullmatch(name) or name == DEAD_LETTER_SUFFIX:
        raise ModuleError(f"{kind} {name!r} is not valid: it must be {_PART_RULE}.")
    return name


def queue_of(topic: str, module: str, name: str | None = None) -> str:
    """Return the name shared by queue, task and subscription: ``T.M`` or ``T.M.NAME``."""
    return f"{topic}.{module}" if name is None else f"{topic}.{module}.{name}"


def dead_letter_topic_of(queue: str) -> str:
    """Return the name shared by the dead-letter topic and the subscription that keeps it."""
    return f"{queue}.{DEAD_LETTER_SUFFIX}"


def build_filter(queue: str, user_filter: str = "") -> str:
    """Return the subscription's filter: the user's, and nothing addressed to another handler.

    Example::

        (attributes.source = "api") AND
        (NOT attributes:"convotic-target" OR attributes."convotic-target" = "custom.orders.new.crm")

    (without the line break). Raises ModuleError over 256 bytes.
    """
    own = f'NOT attributes:"{TARGET_ATTRIBUTE}" OR attributes."{TARGET_ATTRIBUTE}" = "{queue}"'
    expression = f"({user_filter}) AND ({own})" if user_filter else own
    size = len(expression.encode())
    if size > MAX_FILTER_BYTES:
        raise ModuleError(
            f"the filter of {queue!r} has {size} bytes, Pub/Sub allows {MAX_FILTER_BYTES}: shorten "
            f"{'the filter option, ' if user_filter else ''}the name of topic, module or handler. "
            f"The filter is: {expression}"
        )
    return expression
