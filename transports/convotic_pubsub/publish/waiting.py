"""Messages on their way to the server: each with its caller's future, in lanes of topic and key.

Pure but for the futures that it resolves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convotic_pubsub.client.rpc import translate
from convotic_pubsub.errors import PublishError, TopicNotFound
from convotic_pubsub.limits import MAX_MESSAGES

if TYPE_CHECKING:
    import grpc

    from convotic_pubsub.outgoing import IfMissing
    from convotic_pubsub.publish.confirmation import Confirmation

__all__ = [
    "Lane",
    "Waiting",
    "confirm",
    "fail",
    "is_missing",
    "publish_error",
    "session_closed",
    "take_batch",
]

#: The service takes 10 MB a request; the margin is for framing.
_MAX_REQUEST_BYTES = 9_000_000


@dataclass(slots=True, eq=False)
class Waiting:
    """A message on its way, and its caller's future."""

    path: str
    message: Any
    size: int
    if_missing: IfMissing
    #: When it was published.
    began: float
    #: A transient error after this is final; 0: every one is.
    retry_until: float
    future: Confirmation


@dataclass(slots=True, eq=False)
class Lane:
    """The messages of one topic, or of one ordering key of it, that wait for a request."""

    path: str
    ordering_key: str
    queue: deque[Waiting] = field(default_factory=deque)
    requests: int = 0
    is_gathering: bool = False


def take_batch(queue: deque[Waiting]) -> list[Waiting]:
    """Take what fits into the next request."""
    batch = [queue.popleft()]
    size = batch[0].size
    while queue and len(batch) < MAX_MESSAGES and size + queue[0].size <= _MAX_REQUEST_BYTES:
        batch.append(queue.popleft())
        size += batch[-1].size
    return batch


def is_missing(error: grpc.RpcError) -> bool:
    """Say whether the topic does not exist."""
    return isinstance(translate(error, "topic"), TopicNotFound)


def session_closed(path: str) -> PublishError:
    """Return the error of what was on its way when its session ended."""
    return PublishError(f"{path}: the session was closed before a confirmation")


def publish_error(error: grpc.RpcError, path: str) -> Exception:
    """Return the error of a publish that the server refused or did not confirm."""
    translated = translate(error, path)
    if isinstance(translated, PublishError):
        return translated
    return PublishError(f"not confirmed: {translated}")


def confirm(waiting: Waiting, message_id: str) -> None:
    """Resolve a message's future with its id."""
    if not waiting.future.done():  # its owner may have cancelled it
        waiting.future.set_result(message_id)


def fail(batch: Iterable[Waiting], error: Exception, *, missing: bool = False) -> None:
    """Resolve futures with an error; ``missing``: with their own for a missing topic, if any."""
    for each in batch:
        if each.future.done():
            continue
        own = error
        if missing and each.if_missing.error is not None:
            own = each.if_missing.error()
            own.__cause__ = error
        each.future.set_exception(own)
