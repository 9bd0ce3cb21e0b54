"""What the index knows of a dead letter: :class:`DeadLetter`, and how it is read. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from convotic_celery.runtime.delivery.attributes import (
    replay_count,
    user_attributes,
)
from convotic_celery.runtime.delivery.payload import task_id_of

__all__ = [
    "FORWARDED",
    "DeadLetter",
    "Group",
    "HistoryItem",
    "Page",
    "PayloadMode",
    "State",
    "entry_id",
    "from_message",
    "group_id",
    "replayable_attributes",
]

#: Where an entry stands. ``open``: its message waits in the dead-letter subscription. ``replayed``:
#: published again, the outcome is the handler's. ``archived``: out of sight, the message stays.
#: ``missing``: the last sync did not find its message. ``purged``: deleted on purpose.
State: TypeAlias = Literal["open", "replayed", "archived", "missing", "purged"]

#: How much of the data an entry keeps.
PayloadMode: TypeAlias = Literal["full", "preview", "none"]

#: The reason of what Pub/Sub's own dead-letter policy has forwarded: it gives none.
FORWARDED: Final = "forwarded-by-pubsub"

_PREFIX = "convotic-dead-letter-"
_SERVICE_PREFIX = "CloudPubSubDeadLetterSource"
#: Data larger than this is kept as a preview, in bytes.
MAX_FULL_BYTES: Final = 65_536
PREVIEW_BYTES: Final = 1_024
#: What differs between two texts of one error: numbers, ids, quoted values.
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-fA-F]+|[0-9a-fA-F-]{12,}|\d+")


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One action on a dead letter."""

    at: datetime
    #: ``replay``, ``redirect``, ``edit``, ``archive``, ``restore`` or ``purge``.
    action: str
    #: Who did it.
    by: str
    #: What else there is to say, such as the handler of a redirect.
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An index entry: one message that one handler could not process. Times are UTC."""

    #: The same for all dead letters of this message and handler.
    id: str
    #: Its queue.
    handler: str
    topic: str
    subscription: str
    #: ``message.id``: of the first publish.
    message_id: str
    #: Pub/Sub's id of the copy in the dead-letter subscription.
    dead_letter_id: str
    reason: str
    error_type: str = ""
    error_message: str = ""
    #: The author's frames, outermost first, without line numbers: ``package.module:function``.
    stack: tuple[str, ...] = ()
    #: Of those with the same handler, reason, error type and stack.
    group: str
    #: Runs that the message had.
    attempts: int = 0
    published_at: datetime | None = None
    dead_lettered_at: datetime
    #: How often it was replayed and failed again.
    failed_again: int = 0
    state: State = "open"
    #: All but the framework's own, tracing attributes included.
    all_attributes: Mapping[str, str] = field(default_factory=dict)
    #: The data or its beginning, see :attr:`payload`; None if it is not kept.
    data: bytes | None = None
    payload: PayloadMode = "full"
    size: int = 0
    #: What :meth:`.DeadLetters.edit` has put in place of the data for the next replay.
    edited: bytes | None = None
    history: Sequence[HistoryItem] = ()

    @property
    def attributes(self) -> dict[str, str]:
        """The publisher's own attributes."""
        return user_attributes(self.all_attributes)

    def to_json(self, *, with_payload: bool = True) -> dict[str, Any]:
        """Return it as plain JSON; data that is no UTF-8 as ``data_base64``."""
        shown: dict[str, Any] = {
            "id": self.id,
            "handler": self.handler,
            "topic": self.topic,
            "message_id": self.message_id,
            "dead_letter_id": self.dead_letter_id,
            "reason": self.reason,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "stack": list(self.stack),
            "group": self.group,
            "attempts": self.attempts,
            "published_at": self.published_at and self.published_at.isoformat(),
            "dead_lettered_at": self.dead_lettered_at.isoformat(),
            "failed_again": self.failed_again,
            "state": self.state,
            "size": self.size,
            "payload": self.payload,
            "history": [
                {"at": h.at.isoformat(), "action": h.action, "by": h.by, "detail": h.detail}
                for h in self.history
            ],
        }
        if with_payload:
            shown["attributes"] = self.attributes
            shown |= _show_data("data", self.data) | _show_data("edited", self.edited)
        return shown


def _show_data(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters of one handler with the same reason, error type and stack."""

    id: str
    handler: str
    reason: str
    error_type: str
    #: Of the newest one.
    error_message: str
    stack: tuple[str, ...]
    first_at: datetime
    last_at: datetime
    #: How many are in each state.
    counts: Mapping[State, int]
    #: How often a replay of one of them has failed again.
    failed_again: int = 0

    @property
    def open(self) -> int:
        """How many wait for somebody to act."""
        return self.counts.get("open", 0)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "id": self.id,
            "handler": self.handler,
            "reason": self.reason,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "stack": list(self.stack),
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "counts": dict(self.counts),
            "failed_again": self.failed_again,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some dead letters, newest first."""

    items: Sequence[DeadLetter]
    #: For the next page; "" if this is the last one.
    next_cursor: str = ""
    #: How many match in all; None: not counted.
    total: int | None = None
    #: True if the store was unavailable: these are some that Pub/Sub delivered, not all.
    is_sample: bool = False


def entry_id(handler: str, message_id: str) -> str:
    """Return the id of the entry of a message and handler: the beginning of its first task's."""
    return task_id_of(handler, message_id).replace("-", "")[:16]


def group_id(handler: str, reason: str, error_type: str, stack: str, message: str) -> str:
    """Return what dead letters of one cause have in common; without a stack, by their text."""
    cause = stack or _VARIABLE.sub("#", message)[:200]
    return hashlib.sha256(f"{handler}\n{reason}\n{error_type}\n{cause}".encode()).hexdigest()[:12]


def from_message(  # noqa: PLR0917 - what a dead letter has
    handler: str,
    topic: str,
    data: bytes,
    attributes: Mapping[str, str],
    dead_letter_id: str,
    published_at: datetime,
    mode: PayloadMode = "full",
) -> DeadLetter:
    """Return what a message in a dead-letter topic says of itself.

    Args:
        handler: The queue of the handler that it belongs to.
        topic: The handler's topic.
        data: As it was published.
        attributes: All that it has.
        dead_letter_id: Its id there.
        published_at: When it was published there.
        mode: How much of the data to keep.
    """

    def own(name: str) -> str:
        return attributes.get(f"{_PREFIX}{name}", "")

    forwarded = not own("reason") and any(a.startswith(_SERVICE_PREFIX) for a in attributes)
    reason = own("reason") or (FORWARDED if forwarded else "unknown")
    message_id = own("message-id") or attributes.get("convotic-message-id") or dead_letter_id
    error_type, error_message, stack = own("error-type"), own("error-message"), own("stack")
    attempts = own("attempts") or attributes.get(f"{_SERVICE_PREFIX}DeliveryCount", "")
    first = own("published-at") or attributes.get(f"{_SERVICE_PREFIX}TopicPublishTime", "")
    payload, kept = _keep(data, mode)
    return DeadLetter(
        id=entry_id(handler, message_id),
        handler=handler,
        topic=topic,
        subscription=own("subscription") or handler,
        message_id=message_id,
        dead_letter_id=dead_letter_id,
        reason=reason,
        error_type=error_type,
        error_message=error_message,
        stack=tuple(stack.split("\n")) if stack else (),
        group=group_id(handler, reason, error_type, stack, error_message),
        attempts=int(attempts) if attempts.isascii() and attempts.isdigit() else 0,
        published_at=_read_time(first),
        dead_lettered_at=_read_time(own("at")) or published_at.astimezone(UTC),
        failed_again=replay_count(attributes),
        all_attributes=replayable_attributes(attributes),
        data=kept,
        payload=payload,
        size=len(data),
    )


def _keep(data: bytes, mode: PayloadMode) -> tuple[PayloadMode, bytes | None]:
    """Return what the index keeps of the data, and how much of it that is."""
    if mode == "none":
        return "none", None
    if len(data) <= (MAX_FULL_BYTES if mode == "full" else PREVIEW_BYTES):
        return "full", data
    return "preview", data[:PREVIEW_BYTES]


def replayable_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return a dead letter's attributes without the framework's and the dead-letter policy's."""
    own = ("convotic-", _SERVICE_PREFIX)
    return {name: text for name, text in attributes.items() if not name.startswith(own)}


def _read_time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


# -- in the store ----------------------------------------------------------------------------------

#: Names of an entry's fields in the store, in the order in which ``scripts.RECORD`` takes them.
#: Short: there may be 100,000 entries.
FIELDS: Final = ("h", "t", "sb", "m", "d", "r", "e", "x", "s", "a", "p", "u", "b", "k", "n")

_TEXT, _BASE64 = "", "64"
#: Of edited data, by its first character.
_CODINGS = {"t": _TEXT, "b": _BASE64}


def encode(dead: DeadLetter, attributes_json: str) -> list[str]:
    """Return the values of :data:`FIELDS`."""
    body, coding = encode_data(dead.data)
    return [
        dead.handler,
        dead.topic,
        "" if dead.subscription == dead.handler else dead.subscription,
        dead.message_id,
        dead.dead_letter_id,
        dead.reason,
        dead.error_type,
        dead.error_message,
        "\n".join(dead.stack),
        str(dead.attempts),
        "" if dead.published_at is None else str(microseconds(dead.published_at)),
        attributes_json,
        body,
        f"{dead.payload}{coding}",
        str(dead.size),
    ]


def decode(entry: str, fields: Mapping[str, str], attributes: Mapping[str, str]) -> DeadLetter:
    """Return an entry as :func:`encode` has written it."""
    kind = fields.get("k", "none")
    mode: PayloadMode = kind.removesuffix(_BASE64)  # type: ignore[assignment]  # as it was written
    edited = fields.get("ed")
    return DeadLetter(
        id=entry,
        handler=fields["h"],
        topic=fields["t"],
        subscription=fields["sb"] or fields["h"],
        message_id=fields["m"],
        dead_letter_id=fields["d"],
        reason=fields["r"],
        error_type=fields["e"],
        error_message=fields["x"],
        stack=tuple(fields["s"].split("\n")) if fields["s"] else (),
        group=fields["g"],
        attempts=int(fields["a"]),
        published_at=from_microseconds(fields["p"]) if fields["p"] else None,
        dead_lettered_at=from_microseconds(fields["at"]),
        failed_again=int(fields["c"]),
        state=fields["st"],  # type: ignore[arg-type]  # as it was written
        all_attributes=attributes,
        data=None if mode == "none" else decode_data(fields["b"], kind),
        payload=mode,
        size=int(fields["n"]),
        edited=None if edited is None else decode_data(edited[1:], _CODINGS[edited[0]]),
        history=tuple(map(_read_history, fields.get("hi", "").split("\n")[:-1])),
    )


def encode_data(data: bytes | None) -> tuple[str, str]:
    """Return data as text, and how: as it is, or in base64 if it is not UTF-8."""
    try:
        return (data or b"").decode(), _TEXT
    except UnicodeDecodeError:
        return base64.b64encode(data or b"").decode(), _BASE64


def decode_data(body: str, kind: str) -> bytes:
    """Return the data of :func:`encode_data`."""
    if not kind.endswith(_BASE64):
        return body.encode()
    try:
        return base64.b64decode(body)
    except binascii.Error:
        return b""


def _read_history(line: str) -> HistoryItem:
    at, action, by, detail = (*line.split("\t"), "", "", "")[:4]
    return HistoryItem(from_microseconds(at), action, by, detail)


def microseconds(moment: datetime) -> int:
    """Return a time as the store has it: whole microseconds since 1970."""
    return round(moment.timestamp() * 1_000_000)


def from_microseconds(text: str) -> datetime:
    """Return the time of :func:`microseconds`."""
    return datetime.fromtimestamp(int(float(text)) / 1_000_000, UTC)
