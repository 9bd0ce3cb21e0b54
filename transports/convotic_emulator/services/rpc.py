"""How a coroutine becomes a gRPC method: commits and errors. The one service that knows gRPC."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.message import DecodeError

from convotic_emulator.engine.rules import Proto
from convotic_emulator.errors import AckIdsFailed, PubsubError, Unavailable
from convotic_emulator.grpc.call import Call, Method
from convotic_emulator.grpc.eager import EagerCoroutine
from convotic_emulator.grpc.status import CallError, Status
from convotic_protos import rpc

if TYPE_CHECKING:
    from convotic_emulator.engine.engine import Engine

__all__ = [
    "Call",
    "CallError",
    "EagerCoroutine",
    "Method",
    "Status",
    "Unary",
    "call_error",
    "parser",
    "unary",
    "unary_call",
    "unary_methods",
]

Unary: TypeAlias = Callable[[Proto], Awaitable[Proto]]


def unary(engine: Engine, behaviour: Unary, request: Any) -> Method:
    """Return a unary method; ``request`` is a protobuf class."""
    return unary_call(engine, lambda message, _call: behaviour(message), request)


def unary_call(
    engine: Engine, behaviour: Callable[[Proto, Call], Awaitable[Proto]], request: Any
) -> Method:
    """Return a unary method whose behaviour looks at its call too."""

    async def serve(message: Proto, call: Call) -> Proto:
        try:
            engine.commits.check_usable()
            answer = await behaviour(message, call)
            await engine.commits.committed()
        except (PubsubError, sqlite3.Error) as error:
            raise call_error(error, engine) from error
        return answer

    return Method(serve, parser(request))


def parser(request: Any) -> Callable[[bytes], Proto]:
    """Return what parses the requests of a protobuf class; INVALID_ARGUMENT for anything else."""

    def parse(data: bytes) -> Proto:
        try:
            return request.FromString(data)
        except DecodeError as error:
            name = request.DESCRIPTOR.full_name
            text = f"The request is not a valid {name}; all text must be UTF-8."
            raise CallError(Status.INVALID_ARGUMENT, text) from error

    return parse


def unary_methods(engine: Engine, table: Mapping[str, tuple[Unary, Any]]) -> dict[str, Method]:
    """Return methods by name, of behaviours and the protobuf classes of their requests."""
    return {name: unary(engine, behaviour, request) for name, (behaviour, request) in table.items()}


def call_error(error: PubsubError | sqlite3.Error, engine: Engine) -> CallError:
    """Return what ends a call; an error of the data file is the engine's matter too."""
    if isinstance(error, sqlite3.Error):
        engine.commits.fail(error)
        error = Unavailable(f"The data file can't be used: {error}.")
    trailers = _details(error) if isinstance(error, AckIdsFailed) else ()
    return CallError(Status[error.code], str(error), trailers)


def _details(error: AckIdsFailed) -> tuple[tuple[str, bytes], ...]:
    """Return a google.rpc.Status with the ErrorInfo that exactly-once clients read."""
    info = rpc.ErrorInfo(
        reason="EXACTLY_ONCE_ACKID_FAILURE",
        domain="pubsub.googleapis.com",
        metadata=error.failures,
    )
    status = rpc.Status(code=Status[error.code], message=str(error))
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)
