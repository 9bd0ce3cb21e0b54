"""A server in front of an emulator that refuses when told: the faults of the real service."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.support.waiting import PATIENCE

__all__ = ["FaultyServer", "run_faulty_server"]


class FaultyServer(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in stubs only
    """Passes unary calls on, or answers with a status. Does not stream: clients pull."""

    def __init__(self, target: str) -> None:
        #: Any: grpc-stubs want serializers, which bytes don't need.
        self._channel: Any = grpc.insecure_channel(target)
        self.address = ""
        #: Methods by the end of their name, and what they answer.
        self.faults: dict[str, tuple[grpc.StatusCode, str]] = {}
        #: Methods that are passed on once their event is set.
        self.held: dict[str, threading.Event] = {}
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of any method."""
        method: str = handler_call_details.method
        name = method.rsplit("/", 1)[1]

        def call(request: bytes, context: Any) -> bytes:
            with self._lock:
                self.calls[name] += 1
            # A test may take either away at any moment.
            if fault := self.faults.get(name):
                context.abort(*fault)
            if held := self.held.get(name):
                held.wait(PATIENCE)
            try:
                answer: bytes = self._channel.unary_unary(method)(
                    request, timeout=max(0.1, min(context.time_remaining() or 30, 30))
                )
            except grpc.RpcError as error:
                failed: Any = error
                context.abort(failed.code(), failed.details())
                raise
            return answer

        return grpc.unary_unary_rpc_method_handler(call)

    def close(self) -> None:
        """Close the way to the emulator."""
        self._channel.close()


@contextmanager
def run_faulty_server(target: str) -> Iterator[FaultyServer]:
    """Serve for the block."""
    faulty = FaultyServer(target)
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((faulty,))
    faulty.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield faulty
    finally:
        server.stop(None).wait()
        faulty.close()
