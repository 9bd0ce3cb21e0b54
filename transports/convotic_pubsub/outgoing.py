"""A message to publish, how to send it, and what to do if its topic is missing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from convotic_pubsub.limits import message_bytes

__all__ = [
    "FAIL_IF_MISSING",
    "Answer",
    "IfMissing",
    "OutgoingMessage",
    "Sending",
    "failed_answer",
]

#: Which thread sends a message. ``batched``: the I/O thread, together with what else there is.
#: ``directly``: the caller's, without waiting for the answer; faster for a single message that a
#: coroutine waits for.
#: ``blocking``: the caller's, which waits for the confirmation.
Sending: TypeAlias = Literal["batched", "directly", "blocking"]


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A raw message for a topic: its short name, or ``projects/P/topics/T``."""

    topic: str
    data: bytes = b""
    attributes: Mapping[str, str] = field(default_factory=dict)
    ordering_key: str = ""
    _size: int | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Its bytes as Pub/Sub counts them; counted once."""
        if self._size is None:
            size = message_bytes(self.data, self.attributes, self.ordering_key)
            object.__setattr__(self, "_size", size)
            return size
        return self._size


class Answer(Protocol):
    """What a publish returns: the message id, or an error, once there is one. Thread-safe.

    A ``concurrent.futures.Future`` is one; not every one is such a future.
    """

    def done(self) -> bool:
        """Return whether there is an answer."""
        ...

    def result(self, timeout: float | None = None) -> str:
        """Return the id, or raise the error, or TimeoutError; blocks so long."""
        ...

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, if it is one."""
        ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Call ``fn`` with this, on the thread that brings the answer."""
        ...


def failed_answer(error: BaseException) -> Answer:
    """Return the answer to a message that was not even sent."""
    future: Future[str] = Future()
    future.set_exception(error)
    return future


@dataclass(frozen=True, slots=True)
class IfMissing:
    """What to do if the topic of a message does not exist. Pickled on its way out of a fork."""

    #: Queues to declare, which creates the topic; the message is then sent again.
    declare: tuple[str, ...] = ()
    #: Makes the error to raise if there are none; by default it is ``TopicNotFound``.
    error: Callable[[], Exception] | None = None


FAIL_IF_MISSING: Final = IfMissing()
