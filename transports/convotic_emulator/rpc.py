"""How a coroutine becomes a gRPC method: metadata, errors, and a catch-all for the rest."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # no stubs

from convotic_emulator import __version__
from convotic_emulator.errors import AckIdsFailed, PubsubError, Unavailable
from convotic_emulator.settings import Proto

if TYPE_CHECKING:
    from convotic_emulator.engine import Engine

__all__ = ["HOT", "METADATA", "Context", "Unary", "UnknownMethods", "abort", "unary"]

logger = logging.getLogger(__name__)

#: A grpc.aio.ServicerContext: grpc-stubs do not know what it carries.
Context: TypeAlias = Any
Unary: TypeAlias = Callable[[Proto, Context], Awaitable[Proto]]

#: Initial metadata of answers (but those of HOT methods): tells this server from Google's emulator
#: and from the service.
METADATA = (("convotic-emulator", __version__),)

#: What is called for each message or batch; its latency counts.
HOT = frozenset({"Publish", "Acknowledge", "ModifyAckDeadline", "Pull"})


def unary(
    engine: Engine, behaviour: Unary, request: Any, response: Any, *, is_hot: bool = False
) -> Any:
    """Return the handler of a unary method; ``request`` and ``response`` are protobuf classes.

    ``is_hot`` leaves the metadata out, which cost a write of their own.
    """

    async def call(message: Proto, context: Context) -> Proto:
        if not is_hot:
            await context.send_initial_metadata(METADATA)
        try:
            engine.check_usable()
            answer = await behaviour(message, context)
            await engine.committed()
        except (PubsubError, sqlite3.Error) as error:
            await abort(engine, context, error)
        return answer

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )


async def abort(engine: Engine, context: Context, error: Exception) -> NoReturn:
    """End a call with the status of an error."""
    if isinstance(error, sqlite3.Error):
        engine.fail(error)
        error = Unavailable(f"The data file can't be used: {error}.")
    assert isinstance(error, PubsubError)
    trailing = _details(error) if isinstance(error, AckIdsFailed) else ()
    await context.abort(grpc.StatusCode[error.code], str(error), trailing)
    raise AssertionError("abort() raises")


def _details(error: AckIdsFailed) -> tuple[tuple[str, bytes], ...]:
    """Return a google.rpc.Status with the ErrorInfo that exactly-once clients read."""
    info = error_details_pb2.ErrorInfo(
        reason="EXACTLY_ONCE_ACKID_FAILURE",
        domain="pubsub.googleapis.com",
        metadata=error.failures,
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(
        code=grpc.StatusCode[error.code].value[0], message=str(error), details=[detail]
    )
    return (("grpc-status-details-bin", status.SerializeToString()),)


class UnknownMethods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in stubs only
    """Answers every method that nobody else serves with UNIMPLEMENTED and its name."""

    def service(self, handler_call_details: Any) -> Any:
        """Return a handler for any method."""
        method = handler_call_details.method

        async def refuse(_request: bytes, context: Context) -> bytes:
            await context.send_initial_metadata(METADATA)
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, f"{method} is not supported by convotic_emulator."
            )
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)
