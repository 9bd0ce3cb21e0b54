"""What a fork does to sessions: the parent keeps them, the child gets a relay to each.

``subprocess`` is no fork in this sense: it does not run the hooks.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convotic_pubsub.session import Session

__all__ = ["watch_forks"]


class _Fork:
    """The fork under way, if any; only one at a time, so that no sibling inherits its sockets."""

    def __init__(
        self, sessions: Callable[[], Iterable[Session]], in_child: Callable[[], None]
    ) -> None:
        self._sessions = sessions
        self._tell_child = in_child
        self._lock = threading.Lock()
        self._pairs: list[tuple[Session, socket.socket, socket.socket]] = []

    def before(self) -> None:
        self._lock.acquire()
        own = [each for each in self._sessions() if each.pid == os.getpid()]
        self._pairs = [(session, *socket.socketpair()) for session in own]

    def in_parent(self) -> None:
        pairs, self._pairs = self._pairs, []
        self._lock.release()
        for session, ours, theirs in pairs:
            theirs.close()
            session.serve_child(ours)

    def in_child(self) -> None:
        self._lock = threading.Lock()
        pairs, self._pairs = self._pairs, []
        for session in self._sessions():
            session.forked(None)
        for session, ours, theirs in pairs:
            ours.close()
            session.forked(theirs)
        self._tell_child()


def watch_forks(sessions: Callable[[], Iterable[Session]], in_child: Callable[[], None]) -> None:
    """From now on, give forked children relays to ``sessions()``; call ``in_child`` in them."""
    fork = _Fork(sessions, in_child)
    os.register_at_fork(
        before=fork.before, after_in_parent=fork.in_parent, after_in_child=fork.in_child
    )
