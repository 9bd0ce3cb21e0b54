"""What of a channel is unsettled, counted by several threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from convotic_pubsub.kombu.qos import QoS

THREADS, ROUNDS = 4, 3_000


class Unsettled:
    """Stands for a message: the count needs no more of it than that it can be referred to."""


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("is_released", [False, True])
def test_what_is_unsettled_is_listed_while_others_settle(is_released: bool) -> None:
    """No thread trips over a dictionary that changes, and at the end nothing is left."""
    qos: Any = QoS()
    if is_released:
        qos.release()
    done = threading.Event()

    def settle(number: int) -> None:
        for each in range(ROUNDS):
            message, tag = Unsettled(), f"{number}-{each}"
            qos.append(message, tag)
            assert qos.find(tag) is message
            qos.remove(tag)

    def look() -> None:
        while not done.is_set():
            for tag in qos.tags():
                qos.find(tag)

    with ThreadPoolExecutor(THREADS + 1) as threads:
        looking = threads.submit(look)
        settling = [threads.submit(settle, number) for number in range(THREADS)]
        try:
            for each in settling:
                each.result()
        finally:
            done.set()
        looking.result()

    assert qos.tags() == []
