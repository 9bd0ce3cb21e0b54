"""Status codes of gRPC, and the exception that ends a call with one."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CallError", "Status"]


class Status(IntEnum):
    """https://github.com/grpc/grpc/blob/master/doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallError(Exception):
    """Ends the call with a status other than OK.

    Args:
        status: which.
        message: for the client; any text.
        trailers: metadata to send with it; values of keys that end in ``-bin`` are bytes.
    """

    def __init__(
        self, status: Status, message: str, trailers: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.trailers = trailers
