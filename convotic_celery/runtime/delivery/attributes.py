"""The framework's own message attributes: their names, and those of a dead letter.

What they mean is in ``docs/delivery.md``. All begin with ``convotic-``, none is required on the way
in, and none shows in ``message.attributes``. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from convotic_celery.names import TARGET_ATTRIBUTE
from convotic_pubsub.limits import cut_utf8

if TYPE_CHECKING:
    from convotic_celery.runtime.delivery.settlement import Fail

__all__ = [
    "MESSAGE_ID_ATTRIBUTE",
    "REPLAY_COUNT_ATTRIBUTE",
    "REPLAY_TOKEN_ATTRIBUTE",
    "TARGET_ATTRIBUTE",
    "Origin",
    "cut_utf8",
    "dead_letter_attributes",
    "replay_count",
    "trace_attributes",
    "user_attributes",
]

#: The id a message had when it was published first; a replay carries it, so that ``message.id``
#: stays.
MESSAGE_ID_ATTRIBUTE = "convotic-message-id"

#: Shows that a replay is one: see ``replays.py``. On a dead letter, and on its replay.
REPLAY_TOKEN_ATTRIBUTE = "convotic-replay-token"  # noqa: S105 - its name

#: How often the message was replayed from a dead-letter topic; absent on a message that was not.
REPLAY_COUNT_ATTRIBUTE = "convotic-replay-count"

#: Ours, W3C's trace context, and the name that Google's older clients gave it.
_OWN_PREFIXES = ("convotic-", "googclient_")
_TRACE_NAMES = frozenset({"traceparent", "tracestate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a dead letter came from."""

    #: The id of the first publish, see :data:`MESSAGE_ID_ATTRIBUTE`.
    message_id: str
    subscription: str
    topic: str
    #: Timezone-aware.
    published_at: datetime
    replay_count: int = 0


def user_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the publisher's own attributes, without the framework's and the tracing ones."""
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith(_OWN_PREFIXES) and name not in _TRACE_NAMES
    }


def trace_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return W3C's trace context, which Google's clients send with a prefix of their own."""
    found = {}
    for name in ("traceparent", "tracestate"):
        value = attributes.get(name) or attributes.get(f"googclient_{name}")
        if value:
            found[name] = value
    return found


def replay_count(attributes: Mapping[str, str]) -> int:
    """Return how often the message was replayed; 0 also for an attribute that is no number."""
    value = attributes.get(REPLAY_COUNT_ATTRIBUTE, "0")
    return int(value) if value.isascii() and value.isdigit() else 0


def dead_letter_attributes(
    fail: Fail, origin: Origin, *, now: datetime | None = None
) -> dict[str, str]:
    """Return what a dead letter has beside its data and attributes, the most important first.

    The transport leaves off from the end what exceeds Pub/Sub's limits. Empty values are left out.
    """
    prefix = "convotic-dead-letter-"
    values: dict[str, Any] = {
        f"{prefix}reason": fail.reason,
        f"{prefix}message-id": origin.message_id,
        f"{prefix}attempts": fail.attempts,
        f"{prefix}subscription": origin.subscription,
        f"{prefix}topic": origin.topic,
        f"{prefix}error-type": fail.error_type,
        f"{prefix}error-message": fail.error_message,
        f"{prefix}stack": fail.error_stack,
        f"{prefix}published-at": origin.published_at.astimezone(UTC).isoformat(),
        f"{prefix}at": (now or datetime.now(UTC)).isoformat(),
        REPLAY_TOKEN_ATTRIBUTE: fail.replay_token,
        REPLAY_COUNT_ATTRIBUTE: origin.replay_count,
    }
    return {name: cut_utf8(str(value)) for name, value in values.items() if value != ""}
