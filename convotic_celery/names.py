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
from functools import lru_cache

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
    "prefixed",
    "queue_of",
    "resource_name_problem",
    "schedule_topic",
    "topic_problem",
    "workflow_of",
    "workflow_topic",
]

DEAD_LETTER_SUFFIX = "dead-letter"

#: Attribute that addresses a message to one handler of its topic; the value is the handler's queue.
TARGET_ATTRIBUTE = "convotic-target"

#: What the topics of workflows' steps begin with.
_WORKFLOW = "workflow."

#: Longest filter expression, https://cloud.google.com/pubsub/docs/subscription-message-filter
MAX_FILTER_BYTES = 256

#: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_RESOURCE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}")
_RESOURCE_RULE = (
    "3 to 255 characters, the first a letter, the rest letters, digits and -_.~+%, not beginning "
    'with "goog"'
)
#: A resource of another project, https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_PATH = re.compile(r"projects/[a-z0-9:.-]{4,}/(topics|subscriptions)/(.*)")
_PART_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PART_RULE = (
    f'a letter, then letters, digits, "_" and "-" (no dots), and not "{DEAD_LETTER_SUFFIX}"'
)


def resource_name_problem(name: str) -> str | None:
    """Return the rule that ``name`` breaks as a topic or subscription, or None."""
    if _RESOURCE_NAME.fullmatch(name) and not name.startswith("goog"):
        return None
    return f"Pub/Sub's rule is: {_RESOURCE_RULE}"


@lru_cache(maxsize=1024)  # called for each publish
def topic_problem(topic: str) -> str | None:
    """Return the rule that ``topic`` breaks, or None; accepts ``projects/P/topics/T`` too."""
    path = _PATH.fullmatch(topic)
    return resource_name_problem(path[2] if path and path[1] == "topics" else topic)


def prefixed(prefix: str, name: str, kind: str) -> str:
    """Return a resource's name with ``prefix`` before it; a full path is returned as it is.

    Raises ModuleError if the result is too long.
    """
    if not prefix or _PATH.fullmatch(name):
        return name
    return check_resource_name(kind, prefix + name)


def check_resource_name(kind: str, name: str) -> str:
    """Return ``name``, or raise ModuleError if Pub/Sub would refuse it as a ``kind``.

    A full path (``projects/P/topics/T``, ``projects/P/subscriptions/S``) names a resource of
    another project.
    """
    path = _PATH.fullmatch(name)
    if path and (path[1] == "subscriptions") is (kind == "subscription"):
        problem = resource_name_problem(path[2])
    else:
        problem = resource_name_problem(name)
    if problem:
        raise ModuleError(
            f"{kind} {name!r} ({len(name)} characters) is not a valid name: {problem}."
        )
    return name


def check_module_name(name: str) -> str:
    """Return ``name``, or raise ModuleError: it becomes a part of queue and subscription names."""
    return _check_part("module name", name)


def check_handler_name(name: str, kind: str = "handler") -> str:
    """Return ``name``, or raise ModuleError: it becomes the last part of the queue's name."""
    return _check_part(f"{kind} name", name)


def _check_part(kind: str, name: str) -> str:
    if not _PART_NAME.fullmatch(name) or name == DEAD_LETTER_SUFFIX:
        raise ModuleError(f"{kind} {name!r} is not valid: it must be {_PART_RULE}.")
    return name


def queue_of(topic: str, module: str, name: str | None = None) -> str:
    """Return the name shared by queue, task and subscription: ``T.M`` or ``T.M.NAME``."""
    topic = topic.rpartition("/")[2]  # of a full path, the topic's own name
    return f"{topic}.{module}" if name is None else f"{topic}.{module}.{name}"


def workflow_topic(name: str) -> str:
    """Return the topic of a workflow's steps; raises ModuleError for an invalid name."""
    return f"{_WORKFLOW}{check_handler_name(name, 'workflow')}"


def workflow_of(topic: str) -> str | None:
    """Return the workflow whose steps a topic is for; None if it is for no workflow."""
    return topic.removeprefix(_WORKFLOW) if topic.startswith(_WORKFLOW) else None


def schedule_topic(name: str) -> str:
    """Return the topic of a scheduled handler; raises ModuleError for an invalid name."""
    return f"schedule.{check_handler_name(name, 'schedule')}"


def dead_letter_topic_of(queue: str) -> str:
    """Return the name shared by the dead-letter topic and its subscription."""
    return f"{queue}.{DEAD_LETTER_SUFFIX}"


def build_filter(queue: str, user_filter: str = "") -> str:
    """Return the subscription's filter: the user's, without messages for other handlers.

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
