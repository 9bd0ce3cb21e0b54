"""The store's connections for plain code: :class:`Connections`, kept open between calls.

redis-py's connections are used directly: before each command, its client and its pool check whether
the connection is still good, which takes longer than the command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

__all__ = ["Connections"]

_pack: Any = hiredis.pack_command  # its stub takes commands of one word only


class Connections:
    """Runs commands, each on a connection that no other thread uses. Thread-safe.

    There are at most as many connections as threads have called at the same time.

    Args:
        make_connection: Returns a ``redis`` connection that is not open yet.
    """

    def __init__(self, make_connection: Callable[[], Any]) -> None:
        self._make_connection = make_connection
        #: The last one used is used first; list.pop and append are atomic.
        self._free: list[Any] = []

    def call(self, *command: str | int) -> Any:
        """Send a command and return the server's answer: text, a number, a list or None.

        Raises:
            redis.exceptions.ConnectionError: The server can't be reached, or hung up. Then it has
                also closed the free connections, so they are dropped.
            redis.exceptions.TimeoutError: It did not answer in time.
            redis.exceptions.ResponseError: It refused the command.
        """
        (answer,) = self.call_all([command])
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def call_all(self, commands: Sequence[Sequence[str | int]]) -> list[Any]:
        """Send commands together and return the server's answers; a refusal is one of them.

        Raises:
            redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: as :meth:`call`. Any of
                the commands may have been run.
        """
        packed = [_pack(tuple(command)) for command in commands]
        connection = self._take()
        try:
            connection.send_packed_command([b"".join(packed)], check_health=False)
            answers = [_read(connection) for _ in packed]
        except BaseException as error:
            connection.disconnect()
            if isinstance(error, RedisConnectionError):
                self.close()
            raise
        self._free.append(connection)
        return answers

    def close(self) -> None:
        """Close the connections that are free."""
        while self._free:
            self._free.pop().disconnect()

    def _take(self) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            connection = self._make_connection()
            connection.connect()
            return connection


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refusal:
        return refusal
