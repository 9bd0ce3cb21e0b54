"""gRPC's status codes, and the exception that ends a call with one."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MAX_MESSAGE_CHARACTERS", "CallError", "Status"]

#: Error texts quote what the client sent. Its own limit for all headers may be 8 KiB, and a
#: character may take nine bytes as percent-encoded UTF-8.
MAX_MESSAGE_CHARACTERS = 800


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
        status: the code.
        message: any text for the client. A long one loses its middle, so that both its beginning
            and the rule at its end are kept.
        trailers: metadata to send with it; values of keys that end in ``-bin`` are bytes.
    """

    def __init__(
        self, status: Status, message: str, trailers: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        message = _clipped(message)
        super().__init__(message)
        self.status = status
        self.message = message
        self.trailers = trailers


def _clipped(text: str) -> str:
    if len(text) <= MAX_MESSAGE_CHARACTERS:
        return text
    half = MAX_MESSAGE_CHARACTERS // 2
    return f"{text[:half]} [… {len(text) - 2 * half} characters …] {text[-half:]}"
