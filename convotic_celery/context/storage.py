"""What the storage takes and returns, in the form that is stored. Pure: no I/O.

JSON is kept with sorted names and without spaces, so that equal values are equal texts; bytes are
kept as base64, because the store's client speaks text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from convotic_celery.context.models import Page
from convotic_celery.context.publishing import encode_json
from convotic_celery.context.typed_json import validate_json
from convotic_celery.errors import InvalidField, NotSerializable, StorageValueTooLarge

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["DEFAULT_MAX_VALUE_BYTES", "StorageItem", "StoredValue", "encode_value"]

#: Largest value unless CONVOTIC_STORAGE_MAX_VALUE_BYTES says another.
DEFAULT_MAX_VALUE_BYTES = 1_000_000
#: A page of items ends early beyond so many bytes of values, since the store answers in one piece.
MAX_PAGE_BYTES = 8_000_000
_MAX_KEY_BYTES = 500
_MAX_LIMIT = 1_000
_MIN_TTL_SECONDS = 0.001
_MAX_TTL_SECONDS = 10 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class StorageItem:
    """One item of a listing."""

    key: str
    #: JSON, or bytes if bytes were kept.
    value: JsonValue | bytes
    #: Timezone-aware, UTC; None: it is kept until it is deleted.
    expires_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value as the store has it."""

    #: ``json`` or ``bytes``.
    kind: str
    text: str


def encode_value(key: str, value: object, *, max_bytes: int | None = None) -> StoredValue:
    """Return the value as it is kept.

    Raises:
        InvalidField: It is None, which can't be told from absence, or has no JSON form.
        StorageValueTooLarge: It exceeds ``max_bytes``.
    """
    if value is None:
        raise InvalidField(
            f"the value of {key!r} is None, which stands for a missing key: use delete()"
        )
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        stored = StoredValue("bytes", base64.b64encode(raw).decode())
    else:
        raw = _canonical_json(key, value)
        stored = StoredValue("json", raw.decode())
    if max_bytes is not None and len(raw) > max_bytes:
        raise StorageValueTooLarge(key, len(raw), max_bytes)
    return stored


def _canonical_json(key: str, value: object) -> bytes:
    try:
        plain = from_json(encode_json(value))
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()
    except (NotSerializable, ValueError) as error:
        raise InvalidField(f"the value of {key!r} can't be stored: {error}") from error


def decode_json_item(key: str, kind: str | None, text: str | None) -> JsonValue:
    """Return the JSON that is kept, None if nothing is; raises InvalidField for bytes."""
    if text is None:
        return None
    if kind != "json":
        raise InvalidField(f"{key!r} holds bytes: read it with get_bytes()")
    value: JsonValue = from_json(text)
    return value


def decode_model_item(key: str, kind: str | None, text: str | None, wanted: Any) -> Any:
    """Return the JSON as the type ``wanted``, None if nothing is kept; raises InvalidField."""
    if text is None:
        return None
    if kind != "json":
        decode_json_item(key, kind, text)
    return validate_json(f"the value of {key!r}", text, wanted)


def decode_bytes_item(key: str, kind: str | None, text: str | None) -> bytes | None:
    """Return the bytes that are kept, None if nothing is; raises InvalidField for JSON."""
    if text is None:
        return None
    if kind != "bytes":
        raise InvalidField(f"{key!r} holds JSON: read it with get()")
    return base64.b64decode(text)


def check_key(key: object) -> str:
    """Return the key; raises InvalidField unless it is a string of 1 to 500 bytes."""
    return _check_text("a key", key, at_least=1)


def check_prefix(prefix: object) -> str:
    """Return the prefix; raises InvalidField unless it is a string of 0 to 500 bytes."""
    return _check_text("a prefix", prefix, at_least=0)


def _check_text(what: str, text: object, *, at_least: int) -> str:
    try:
        size = len(text.encode()) if isinstance(text, str) else -1
    except UnicodeEncodeError:
        size = -1
    if not isinstance(text, str) or not at_least <= size <= _MAX_KEY_BYTES:
        raise InvalidField(
            f"{what} of the storage must be a string of {at_least} to {_MAX_KEY_BYTES} UTF-8 bytes"
        )
    return text


def ttl_milliseconds(ttl: float | timedelta | None) -> str:
    """Return the time to live as the scripts take it, "" for none; raises InvalidField."""
    if ttl is None:
        return ""
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidField(f"ttl must be seconds or a timedelta, not {type(ttl).__name__}")
    if not _MIN_TTL_SECONDS <= seconds <= _MAX_TTL_SECONDS:  # false for NaN as well
        raise InvalidField(f"ttl must be a millisecond to ten years, not {seconds} seconds")
    return str(round(seconds * 1000))


def list_arguments(prefix: str, limit: int, cursor: str | None) -> tuple[str, str, str, str]:
    """Return the arguments of ``LIST_ITEMS``; raises InvalidField."""
    check_prefix(prefix)
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidField(f"limit must be 1 to {_MAX_LIMIT}, not {limit}")
    if cursor is not None and not check_key(cursor).startswith(prefix):
        raise InvalidField(f"the cursor {cursor!r} belongs to a listing of another prefix")
    return prefix, cursor or "", str(limit), str(MAX_PAGE_BYTES)


def parse_page(last: str, found: Sequence[Sequence[str]]) -> Page[StorageItem]:
    """Return the page that ``LIST_ITEMS`` gave."""
    # model_construct: the items are ours already, nothing is left to validate.
    return Page[StorageItem].model_construct(
        items=tuple(_parse_item(*item) for item in found), next_cursor=last or None
    )


def _parse_item(key: str, kind: str, text: str, expires_at: str, updated_at: str) -> StorageItem:
    value = base64.b64decode(text) if kind == "bytes" else from_json(text)
    return StorageItem(
        key=key,
        value=value,
        expires_at=datetime.fromtimestamp(int(expires_at) / 1000, UTC) if expires_at else None,
        updated_at=datetime.fromisoformat(updated_at),
    )
