"""A gRPC server that does nothing but answer Publish with an id: the floor of a Python server.

``python -m benchmarks.echo`` prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from google.pubsub_v1.types import pubsub as t

_RESPONSE = t.PublishResponse.pb()


async def answer(_request: Any, _context: Any) -> Any:
    """Confirm a publish without storing it."""
    return _RESPONSE(message_ids=["17999999999999999"])


async def main() -> None:
    """Serve."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=t.PublishRequest.pb().FromString,
        response_serializer=_RESPONSE.SerializeToString,
    )
    service: Any = grpc.method_handlers_generic_handler(
        "google.pubsub.v1.Publisher", {"Publish": handler}
    )
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # for the process that started it
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
