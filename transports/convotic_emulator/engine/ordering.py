"""Ordering keys: one lane a key, in which one delivered run of messages is open at a time.

A run is the messages of the key that one response carried. It is closed when each of them is
acknowledged or has failed. Then the first that failed **and all after it, acknowledged ones
included,** come again, in order, before anything newer of the key: redelivery of one message
repeats the later ones (https://cloud.google.com/pubsub/docs/ordering). So an acknowledgement
behind an unsettled message is kept back until that one is settled.

Memory holds open runs only. Everything else of a key stays in the journal: a lane remembers the
range that was passed over, and reads it again when the run is closed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convotic_emulator.storage.message import Message

__all__ = ["Lane"]


class Lane:
    """The open run of one key, and the range of the key that waits behind it."""

    __slots__ = ("acknowledged", "failed", "next_up", "passed_from", "passed_to", "run", "taker")

    def __init__(self) -> None:
        #: Delivered and not closed, in order.
        self.run: dict[int, Message] = {}
        self.acknowledged: set[int] = set()
        self.failed: set[int] = set()
        #: Read from the passed-over range, to be delivered next.
        self.next_up: deque[Message] = deque()
        #: What is to be delivered before anything else of the key; empty when from > to.
        self.passed_from = 1
        self.passed_to = 0
        #: The take that opened the run; it may add to it.
        self.taker: object = None

    @property
    def has_more(self) -> bool:
        """Whether something of the key waits behind the run."""
        return bool(self.next_up) or self.passed_from <= self.passed_to

    def is_open_to(self, taker: object) -> bool:
        """Say whether ``taker`` may deliver the next message of the key."""
        return not self.run or self.taker is taker

    def pass_over(self, first_seq: int, last_seq: int) -> None:
        """Leave a range of the key for later."""
        if self.passed_from > self.passed_to:
            self.passed_from, self.passed_to = first_seq, last_seq
        else:
            self.passed_from = min(self.passed_from, first_seq)
            self.passed_to = max(self.passed_to, last_seq)

    def read_ahead(self, messages: list[Message]) -> None:
        """Take in the head of the passed-over range; nothing read means that it is used up."""
        fresh = [m for m in messages if m.seq not in self.run]
        self.next_up.extend(fresh)
        self.passed_from = messages[-1].seq + 1 if messages else self.passed_to + 1

    def deliver(self, message: Message, taker: object) -> None:
        """Add a message to the run of ``taker``."""
        self.taker = taker
        self.run[message.seq] = message

    def acknowledge(self, seq: int) -> list[int]:
        """Note an acknowledgement; return those that are final by it, and have left the run."""
        self.failed.discard(seq)
        self.acknowledged.add(seq)
        return self._leave()

    def drop(self, seq: int) -> list[int]:
        """Take out a message that is gone for another reason; return what is final by that."""
        self.run.pop(seq, None)
        self.acknowledged.discard(seq)
        self.failed.discard(seq)
        return self._leave()

    def fail(self, seq: int) -> None:
        """Note a nack or a lapse."""
        self.failed.add(seq)

    def close(self) -> list[Message]:
        """End the run if all of it is settled; return its acknowledged messages, to come again."""
        if not self.run or len(self.acknowledged) + len(self.failed) < len(self.run):
            return []
        repeated = [self.run[seq] for seq in self.run if seq in self.acknowledged]
        last_seq = max([*self.run, *(m.seq for m in self.next_up)])
        self.next_up.clear()
        self.pass_over(min(self.run), last_seq)
        self.run.clear()
        self.acknowledged.clear()
        self.failed.clear()
        return repeated

    def _leave(self) -> list[int]:
        final: list[int] = []
        for seq in self.run:
            if seq not in self.acknowledged:
                break
            final.append(seq)
        for seq in final:
            del self.run[seq]
            self.acknowledged.discard(seq)
        return final
