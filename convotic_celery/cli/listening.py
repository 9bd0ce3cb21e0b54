"""Listening where the command line says: :func:`listen`. What prevents it is one line."""

from __future__ import annotations

import errno
import os
import socket

import click

__all__ = ["cant_listen", "listen", "url_for", "url_of"]

_HINTS = {
    errno.EADDRINUSE: "the port is taken; port 0 is any free one",
    errno.EADDRNOTAVAIL: "the address is not of this machine; --host takes one that is, or 0.0.0.0",
    errno.EACCES: "ports below 1024 need privileges that this user lacks",
}
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here


def listen(host: str, port: int, *, tries: int = 1) -> socket.socket:
    """Return a socket that listens; where the port is taken, on the next free one of ``tries``.

    Raises:
        ClickException: It can't be listened on.
    """
    last = port + (tries if port else 1) - 1
    for each in range(port, last + 1):
        try:
            return socket.create_server((host, each), family=_find_family(host))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or tries == 1:
                raise cant_listen(host, each, error) from None
    raise click.ClickException(f"Ports {port} to {last} of {host} are taken: choose another one.")


def cant_listen(host: str, port: int, error: OSError) -> click.ClickException:
    """Return the error that says why, and what to do."""
    number = error.errno or 0
    # Of a name that can't be resolved the numbers are others, and the text is Python's.
    reason = str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(number)
    return click.ClickException(
        f"Can't listen on {_join(host, port)}: {_HINTS.get(number, reason)}."
    )


def url_of(listener: socket.socket) -> str:
    """Return the address under which this machine's browser finds a socket."""
    host, port, *_ = listener.getsockname()
    return url_for(host, port)


def url_for(host: str, port: int) -> str:
    """Return the address of a host and its port, as :func:`url_of`."""
    return f"http://{_join(_WILDCARDS.get(host, host), port)}"


def _find_family(host: str) -> socket.AddressFamily:
    """Prefer IPv4, where a name has both: what is told 127.0.0.1 finds it."""
    families = {each[0] for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return socket.AF_INET if socket.AF_INET in families else socket.AF_INET6


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
