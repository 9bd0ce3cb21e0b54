"""Which queue gets a message: bindings, AMQP's matching, and their names on the server. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from convotic_pubsub.errors import OptionError
from convotic_pubsub.names import check_resource_id, resource_id

__all__ = [
    "Binding",
    "binding_id",
    "exchange_id",
    "is_transient_name",
    "read_binding",
    "topic_matches",
]

_EXCHANGE: Final = "celery.exchange."
_BINDING: Final = "celery.binding~"
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: Queues of one process: replies and results (``rpc://``), event receivers, broadcasts, anonymous
#: queues (all named by a UUID), and a worker's remote control.
_TRANSIENT: Final = re.compile(rf"(.*[^0-9a-f])?{_UUID}([^0-9a-f].*)?|.*\.pidbox", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue gets what is published to an exchange with a fitting routing key."""

    exchange: str
    #: ``direct``, ``topic`` or ``fanout``.
    kind: str
    #: "": transient queues of some processes, which listen on the control topics.
    queue: str
    routing_key: str = ""

    def matches(self, routing_key: str) -> bool:
        """Say whether the queue gets a message with this key."""
        if self.kind == "fanout" or not self.queue:
            return True
        if self.kind == "topic":
            return topic_matches(self.routing_key, routing_key)
        return self.routing_key == routing_key

    @property
    def is_implied(self) -> bool:
        """Whether it goes without saying: exchange, key and queue have one name."""
        return self.kind == "direct" and self.exchange == self.queue == self.routing_key


def is_transient_name(queue: str) -> bool:
    """Say whether a queue's name is that of one process's queue, as Celery and kombu make them."""
    return _TRANSIENT.fullmatch(queue) is not None


def exchange_id(exchange: str, prefix: str) -> str:
    """Return the id of an exchange's topic: bindings hang on it, nothing is published to it."""
    return resource_id(f"{_EXCHANGE}{exchange}", prefix)


def binding_id(binding: Binding, prefix: str) -> str:
    """Return the id of the subscription that stands for a binding; :func:`read_binding` reads it.

    Raises:
        OptionError: exchange, queue and key are too long together.
    """
    parts = (binding.exchange, binding.kind, binding.queue, binding.routing_key)
    name = prefix + _BINDING + "~".join(quote(each, safe="").replace("~", "%7E") for each in parts)
    if not name[0].isalpha() or name.startswith("goog"):
        name = f"q~{name}"
    try:
        return check_resource_id("binding", name)
    except OptionError as error:
        raise OptionError(
            f"the binding of queue {binding.queue!r} to exchange {binding.exchange!r} with key "
            f"{binding.routing_key!r} can't be kept as a subscription: {error}"
        ) from error


def read_binding(name: str) -> Binding | None:
    """Return the binding that a subscription stands for; None for another subscription."""
    _, marker, rest = name.partition(_BINDING)
    parts = [unquote(each) for each in rest.split("~")]
    if not marker or len(parts) != len(("exchange", "kind", "queue", "key")):
        return None
    exchange, kind, queue, routing_key = parts
    return Binding(exchange, kind, queue, routing_key)


@lru_cache(maxsize=4096)
def topic_matches(pattern: str, key: str) -> bool:
    """Say whether AMQP's topic pattern fits: ``*`` is one word, ``#`` any number of words.

    >>> topic_matches("worker.#", "worker.heartbeat"), topic_matches("*.x", "a.b.x")
    (True, False)
    """
    return _words_match(pattern.split("."), key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])
