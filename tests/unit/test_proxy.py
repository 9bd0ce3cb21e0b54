"""The tests' proxy does to a connection what its methods say."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy, run_proxy
from tests.support.waiting import PATIENCE


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy in front of a server that echoes."""
    server = socket.create_server(("127.0.0.1", 0))

    def echo(peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(4096):
                    peer.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with run_proxy(f"127.0.0.1:{server.getsockname()[1]}") as made:
        yield made
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def connect(proxy: Proxy) -> socket.socket:
    host, port = proxy.address.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def ask(peer: socket.socket, text: bytes = b"hello") -> bytes:
    peer.sendall(text)
    return peer.recv(4096)


def is_refused(peer: socket.socket) -> bool:
    try:
        return ask(peer) == b""
    except ConnectionError:
        return True


def test_a_delay_counts_both_ways(proxy: Proxy) -> None:
    """An answer comes after two delays, and what was sent together stays together."""
    with connect(proxy) as peer:
        assert ask(peer) == b"hello"
        proxy.delay_seconds = 0.1
        began = time.monotonic()

        assert ask(peer) == b"hello"

        assert time.monotonic() - began >= 0.2


def test_silence_is_of_open_connections(proxy: Proxy) -> None:
    """They pass nothing any more and don't end; new ones work."""
    with connect(proxy) as old, connect(proxy) as new:
        assert ask(old) == b"hello"
        assert ask(new) == b"hello"
        proxy.silence()
        old.settimeout(0.2)

        with pytest.raises(TimeoutError):
            ask(old)
        with connect(proxy) as newer:
            assert ask(newer) == b"hello"


def test_a_pause_holds_back_and_loses_nothing(proxy: Proxy) -> None:
    """What was sent meanwhile arrives when it is over."""
    with connect(proxy) as peer:
        assert ask(peer) == b"hello"
        proxy.pause()
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(peer, b"later")
        peer.settimeout(PATIENCE)

        proxy.resume()

        assert peer.recv(4096) == b"later"


def test_refusing_ends_open_connections_and_new_ones(proxy: Proxy) -> None:
    """Until it is over."""
    with connect(proxy) as peer:
        assert ask(peer) == b"hello"
        proxy.refuse()
        assert is_refused(peer)
    with connect(proxy) as peer:
        assert is_refused(peer)

    proxy.resume()

    with connect(proxy) as peer:
        assert ask(peer) == b"hello"


def test_an_end_is_passed_on(proxy: Proxy) -> None:
    """A half-close reaches the other side, whose last bytes still arrive."""
    with connect(proxy) as peer:
        peer.sendall(b"last")
        peer.shutdown(socket.SHUT_WR)

        assert peer.recv(4096) == b"last"
        assert peer.recv(4096) == b""
