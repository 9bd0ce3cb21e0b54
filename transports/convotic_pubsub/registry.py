"""The sessions of this process: one for each set of options, shared by all users of the same."""

from __future__ import annotations

import atexit
import sys
import threading
from typing import TYPE_CHECKING, Any

from convotic_pubsub.client.io_loop import FORKED
from convotic_pubsub.errors import PubsubTransportError
from convotic_pubsub.options import TransportOptions, parse_options
from convotic_pubsub.publish.forked import watch_forks
from convotic_pubsub.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["open_session", "open_sessions", "session_for"]

_sessions: dict[tuple[object, ...], Session] = {}
_sessions_lock = threading.Lock()
_forked_from_user = False


def open_session(options: TransportOptions) -> Session:
    """Return this process's session for ``options``, made on first use. Thread-safe.

    A closed one is replaced. In a process forked from one that has it, it publishes through the
    parent and does nothing else.

    Raises:
        BrokerUnavailable: the emulator can't be reached.
        PubsubTransportError: also in a process forked from one that used gRPC otherwise, where a
            call would hang (https://github.com/grpc/grpc/blob/master/doc/fork_support.md).
    """
    key = _key(options)
    with _sessions_lock:
        _forget_closed()
        session = _sessions.get(key)
        if session is None:
            if _forked_from_user:
                raise PubsubTransportError(FORKED)
            _refuse_green_threads()
            session = _sessions[key] = Session(options)
        return session


def _refuse_green_threads() -> None:
    """Raise where gevent or eventlet has patched threads: our I/O loop would never turn there.

    gRPC's ``init_gevent`` is for its blocking calls; the transport's are asyncio's.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        name = "gevent"
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        name = "eventlet"
    else:
        return
    raise PubsubTransportError(
        f"pubsub:// does not work in a process that {name} has patched: it needs real threads. "
        "Use Celery's default pool, prefork, threads or solo; for gunicorn gthread or uvicorn."
    )


def session_for(url: str, transport_options: Mapping[str, Any]) -> Session:
    """Return this process's session for a broker URL and kombu's ``transport_options``.

    Raises:
        OptionError: the URL or an option is wrong; else as :func:`open_session`.
    """
    return open_session(parse_options(url, transport_options))


def _key(options: TransportOptions) -> tuple[object, ...]:
    """Return what makes two options the same session: equal settings and the same queues."""
    values = (
        (name, _hashable(getattr(options, name))) for name in options.__slots__ if name != "queues"
    )
    return (*values, tuple(sorted((name, id(spec)) for name, spec in options.queues.items())))


def _hashable(value: object) -> object:
    """Return what stands for a value in a key; credentials and callables stand for themselves."""
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value


def _forget_closed() -> None:
    for key in [key for key, session in _sessions.items() if session.closed]:
        del _sessions[key]


def open_sessions() -> list[Session]:
    """Return the sessions of this process that are not closed. Thread-safe."""
    return [session for session in list(_sessions.values()) if not session.closed]


def _close_all() -> None:
    for session in open_sessions():
        session.close(timeout_seconds=5.0)


def _forked() -> None:
    global _forked_from_user, _sessions_lock  # noqa: PLW0603  a fork is a fact of the process
    _sessions_lock = threading.Lock()
    _forked_from_user = _forked_from_user or bool(open_sessions())


atexit.register(_close_all)
watch_forks(open_sessions, _forked)
