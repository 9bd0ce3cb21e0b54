"""A message to publish, how to send it, and what to do if its topic is missing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

__all__ = ["FAIL_IF_MISSING", "IfMissing", "OutgoingMessage", "Sending"]

#: Which thread sends a message. ``batched``: the I/O thread, together with what else there is.
#: ``directly``: the caller's, without waiting for the answer; faster for a single message.
#: ``blocking``: the caller's, which waits for the confirmation.
Sending: TypeAlias = Literal["batched", "directly", "blocking"]


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A raw message for a topic: its short name, or ``projects/P/topics/T``."""

    topic: str
    data: bytes = b""
    attributes: Mapping[str, str] = field(default_factory=dict)
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class IfMissing:
    """What to do if the topic of a message does not exist. Pickled on its way out of a fork."""

    #: Queues to declare, which creates the topic; the message is then sent again.
    declare: tuple[str, ...] = ()
    #: Makes the error to raise if there are none; by default it is ``TopicNotFound``.
    error: Callable[[], Exception] | None = None


FAIL_IF_MISSING: Final = IfMissing()
