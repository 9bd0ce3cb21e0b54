"""Ask Valkey one question over its unix socket, without a client library.

Valkey takes plain lines as commands (the "inline" form,
https://valkey.io/topics/protocol/#inline-commands). Starting and finding the store
needs PING and INFO alone, and importing redis-py would double the time that takes.
"""

from __future__ import annotations

import socket
from typing import IO

__all__ = ["ValkeyRefused", "ask", "is_ready", "read_info"]


class ValkeyRefused(Exception):
    """Valkey answered with an error, e.g. ``LOADING`` while it reads its append-only file."""


def ask(path: str, command: str, *, timeout_seconds: float = 2.0) -> str:
    """Send one inline command to the socket at ``path`` and return the answer's text.

    Raises:
        OSError: Nobody listens there, or no answer came in time.
        ValkeyRefused: Valkey answered with an error.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(path)
        connection.sendall(f"{command}\r\n".encode())
        with connection.makefile("rb") as answer:
            return _read_answer(answer)


def _read_answer(answer: IO[bytes]) -> str:
    line = answer.readline().rstrip(b"\r\n")
    kind, text = line[:1], line[1:].decode()
    if kind == b"$":
        return answer.read(int(text)).decode()
    if kind == b"-":
        raise ValkeyRefused(text)
    if not line:
        raise ConnectionResetError("Valkey closed the connection without an answer")
    return text


def is_ready(path: str) -> bool:
    """Tell whether a Valkey at ``path`` answers and has loaded its data."""
    try:
        return ask(path, "PING") == "PONG"
    except (OSError, ValkeyRefused):
        return False


def read_info(path: str, section: str) -> dict[str, str]:
    """Return one section of ``INFO`` as a dictionary.

    Raises:
        OSError: Nobody listens there, or no answer came in time.
        ValkeyRefused: Valkey answered with an error.
    """
    lines = ask(path, f"INFO {section}").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
