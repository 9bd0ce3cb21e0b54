"""Requests whose messages are data only: their bytes, without a Python object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_emulator.engine.rules import Proto

__all__ = ["MIN_PACKED", "plain_bodies"]

#: From this number on the messages of a request are stored together; of fewer, each has its row.
MIN_PACKED = 10

#: The tag of the field ``data`` of a PubsubMessage.
_DATA = 0x0A
_VARINT_BITS = 7


def _create_class() -> Any:
    """Return a PublishRequest that leaves its messages as they are."""
    file = descriptor_pb2.FileDescriptorProto(name="convotic/bodies.proto", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name="Bodies").field.add(
        name="messages", number=2, type=kind.TYPE_BYTES, label=kind.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Bodies"))


_BODIES = _create_class()


def plain_bodies(request: Proto) -> Sequence[bytes] | None:
    """Return the messages of a PublishRequest, serialized, if all have data and nothing else.

    None otherwise, and for fewer than :data:`MIN_PACKED`.
    """
    if len(request.messages) < MIN_PACKED:
        return None
    bodies: list[bytes] = list(_BODIES.FromString(request.SerializeToString()).messages)
    heads = {size: _head(size) for size in set(map(len, bodies))}
    is_plain = all(map(bytes.startswith, bodies, map(heads.__getitem__, map(len, bodies))))
    return bodies if is_plain else None


def _head(size: int) -> bytes:
    """Return how a message of ``size`` bytes begins if all of it is data."""
    for head_size in range(2, 2 + size.bit_length() // _VARINT_BITS + 1):
        head = bytearray((_DATA,))
        length = size - head_size
        while length > 0x7F:  # noqa: PLR2004  # seven bits a byte
            head.append(length & 0x7F | 0x80)
            length >>= _VARINT_BITS
        head.append(max(length, 0))
        if len(head) == head_size and size > head_size:
            return bytes(head)
    return b"\xff"  # no message begins so
