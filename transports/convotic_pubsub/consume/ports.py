"""What the parts of this package need of others. Each is given these, never the session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from convotic_pubsub.consume.delivery import Delivery, Outstanding
    from convotic_pubsub.outgoing import OutgoingMessage

__all__ = ["Acks", "Clock", "Dispatch", "Ports", "Post", "PublishCopy", "Timer"]

#: Monotonic seconds.
Clock: TypeAlias = Callable[[], float]
#: Runs a function on the I/O thread soon, from any thread; see :meth:`.IoLoop.post`.
Post: TypeAlias = Callable[..., object]
#: Hands a delivery to its consumer, on the I/O thread. Must not block.
Dispatch: TypeAlias = "Callable[[Delivery], object]"
#: Publishes a message; its id can be awaited, which the server has confirmed then.
PublishCopy: TypeAlias = "Callable[[OutgoingMessage], Awaitable[str]]"


class Acks(Protocol):
    """Sends acknowledgements and deadlines; ``done(confirmed)`` is called with the answer."""

    @property
    def idle(self) -> bool:
        """Whether everything has been sent and answered."""
        ...

    def ack(self, ack_id: str, done: Callable[[bool], None], *, is_urgent: bool) -> None:
        """Acknowledge; an urgent one waits for no others."""
        ...

    def modify(self, ack_id: str, seconds: int, done: Callable[[bool], None]) -> None:
        """Let the lease end in ``seconds`` (0..600)."""
        ...

    def wait_idle(self) -> Awaitable[None]:
        """Return when everything asked for so far has been answered."""
        ...


class Timer(Protocol):
    """Calls back once for a delivery, at the time that was named last."""

    def watch(self, delivery: Delivery, when: float) -> None:
        """Call back at ``when``, by the session's clock."""
        ...

    def forget(self, delivery: Delivery) -> None:
        """Don't call back."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a subscription is given."""

    clock: Clock
    post: Post
    #: As ``post``, but wakes no thread: runs before what is posted next, or a lease is due.
    post_lazily: Post
    acks: Acks
    timer: Timer
    outstanding: Outstanding
    publish: PublishCopy
    #: Called with a queue's name for each of its messages that was dead-lettered.
    count_dead_letter: Callable[[str], object]
