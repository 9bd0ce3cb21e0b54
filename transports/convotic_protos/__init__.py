"""The message types of ``google.pubsub.v1``, ``google.iam.v1`` and ``google.rpc``.

Raw protobuf classes, with protobuf as the only package that they need. Google's own come with its
clients, gRPC and OpenTelemetry: 0.3 s and some 400 modules in each process that neither our
transport nor our emulator uses. The descriptors are Google's, taken from google-cloud-pubsub by
``scripts/protos.py``.

They live in a descriptor pool of their own, so that they and Google's can be in one process. A
message of one can't be a field of a message of the other; on the wire they are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["iam", "pool", "pubsub", "rpc"]

#: For functions that look up types by name, such as json_format's.
pool = descriptor_pool.DescriptorPool()


class _Package:
    """The message classes of a protobuf package, by name; made when first asked for."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        try:
            descriptor = pool.FindMessageTypeByName(f"{self.__name__}.{name}")
        except KeyError:
            raise AttributeError(f"{self.__name__} has no message {name!r}.") from None
        message = message_factory.GetMessageClass(descriptor)
        setattr(self, name, message)
        return message


def _load() -> None:
    data = Path(__file__).with_name("descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)


_load()
pubsub = _Package("google.pubsub.v1")
iam = _Package("google.iam.v1")
rpc = _Package("google.rpc")
