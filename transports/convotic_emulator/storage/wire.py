"""A published message's bytes: what its publisher sent, then the server's fields.

In protobuf the last value of a field counts. So id and time are appended without parsing, and what
a publisher put there has no effect. (https://protobuf.dev/programming-guides/encoding/#last-one-wins)
"""

from __future__ import annotations

import hashlib

__all__ = ["SEED_BYTES", "completion", "message_ids", "publish_time"]

#: Of a seed for :func:`message_ids`, which must be random.
SEED_BYTES = 16
#: Random digits of a message id, after the number that makes it unique.
_RANDOM_DIGITS = 12
#: A digit for each byte; all digits are about as frequent.
_DIGITS = bytes(ord("0") + byte % 10 for byte in range(256))
_SECOND_US = 1_000_000
#: Tags of fields of google.pubsub.v1.PubsubMessage and google.protobuf.Timestamp.
_MESSAGE_ID, _PUBLISH_TIME, _SECONDS, _NANOS = b"\x1a", b"\x22", b"\x08", b"\x10"


def message_ids(seed: bytes, first_seq: int, count: int) -> list[str]:
    """Return ids for messages from a number on: unique, numeric, and unpredictable.

    The service does not promise the last, but handlers deduplicate by these ids.
    """
    digest = hashlib.shake_128(seed).digest(_RANDOM_DIGITS * count)
    digits = digest.translate(_DIGITS).decode()
    starts = range(0, len(digits), _RANDOM_DIGITS)
    return [
        f"{seq}{digits[start : start + _RANDOM_DIGITS]}"
        for seq, start in enumerate(starts, first_seq)
    ]


def completion(message_id: str, published: bytes) -> bytes:
    """Return what follows a message's bytes; ``published`` is :func:`publish_time`'s."""
    text = message_id.encode()
    return _MESSAGE_ID + bytes((len(text),)) + text + published


def publish_time(time_us: int) -> bytes:
    """Return the field of a message that was published at a time, in microseconds since 1970."""
    seconds, micros = divmod(time_us, _SECOND_US)
    timestamp = _SECONDS + _varint(seconds) + _NANOS + _varint(micros * 1000)
    return _PUBLISH_TIME + bytes((len(timestamp),)) + timestamp


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
