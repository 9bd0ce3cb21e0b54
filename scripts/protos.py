"""Writes ``convotic_protos/descriptors.binpb``: the messages of ``google.pubsub.v1`` and friends.

They come from Google's packages as they are installed here; run it when google-cloud-pubsub in
constraints.txt is renewed. The file is a ``google.protobuf.FileDescriptorSet``, as ``protoc
--descriptor_set_out`` writes it. Annotations and services are left out: nothing reads them.

``python scripts/protos.py``; with ``--check`` it writes nothing and fails where the file is old.
"""

# ruff: noqa: INP001 - a program, not a package

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from google.iam.v1 import iam_policy_pb2, policy_pb2  # type: ignore[import-untyped]  # no stubs
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
)
from google.pubsub_v1.types import pubsub, schema
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # no stubs
from google.type import expr_pb2  # type: ignore[import-untyped]  # no stubs

TARGET = Path(__file__).parents[1] / "transports" / "convotic_protos" / "descriptors.binpb"

#: Each after those it needs.
FILES = [
    *(any_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR, field_mask_pb2.DESCRIPTOR),
    *(struct_pb2.DESCRIPTOR, timestamp_pb2.DESCRIPTOR),
    *(error_details_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR, expr_pb2.DESCRIPTOR),
    *(sys.modules["google.iam.v1.options_pb2"].DESCRIPTOR, policy_pb2.DESCRIPTOR),
    iam_policy_pb2.DESCRIPTOR,
    *(schema.Schema.pb().DESCRIPTOR.file, pubsub.Topic.pb().DESCRIPTOR.file),
]


def descriptors() -> bytes:
    """Return the set of all files, serialized."""
    names = {each.name for each in FILES}
    found = descriptor_pb2.FileDescriptorSet()
    for each in FILES:
        file = found.file.add()
        file.ParseFromString(each.serialized_pb)
        file.dependency[:] = [name for name in file.dependency if name in names]
        for field in ("options", "service", "extension", "public_dependency", "weak_dependency"):
            file.ClearField(field)  # type: ignore[arg-type]  # its literals
        for message in file.message_type:
            _strip(message)
    return found.SerializeToString(deterministic=True)


def _strip(message: Any) -> None:
    """Leave the fields and what is nested, under the names of Google's .proto files."""
    if not message.options.map_entry:
        message.ClearField("options")
    for field in message.field:
        field.ClearField("options")
        # proto-plus appends an underscore to names that Python's builtins have too.
        if field.name.endswith("_"):
            field.name = field.name.rstrip("_")
    for enum in message.enum_type:
        for value in enum.value:
            value.ClearField("options")
    for nested in message.nested_type:
        _strip(nested)


def main() -> int:
    """Write the file, or say that it is old."""
    wanted = descriptors()
    if "--check" not in sys.argv[1:]:
        TARGET.write_bytes(wanted)
    elif TARGET.read_bytes() != wanted:
        sys.stderr.write(f"{TARGET} is old: run python scripts/protos.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
