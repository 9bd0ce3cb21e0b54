"""The future of an awaited publish: answered once, by another thread."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import InvalidStateError

import pytest

from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.publish.confirmation import Confirmation
from tests.support.waiting import PATIENCE


def test_each_callback_is_called_once(caplog: pytest.LogCaptureFixture) -> None:
    """Those of before the answer and those of after it; one that fails costs no other."""
    confirmation = Confirmation()
    called: list[str] = []
    confirmation.add_done_callback(lambda one: called.append(f"before {one.result()}"))
    confirmation.add_done_callback(lambda _: 1 / 0)
    confirmation.add_done_callback(lambda _: called.append("next"))

    confirmation.set_result("7")
    confirmation.add_done_callback(lambda _: called.append("after"))

    assert called == ["before 7", "next", "after"]
    assert "A callback failed" in caplog.text
    assert confirmation.done()
    with pytest.raises(InvalidStateError):
        confirmation.set_exception(ValueError())


def test_a_thread_may_wait_for_the_answer() -> None:
    """So long, or until it is there; an error is raised."""
    confirmation = Confirmation()
    with pytest.raises(TimeoutError):
        confirmation.result(0.001)
    answering = threading.Timer(0.01, confirmation.set_exception, [ValueError("refused")])
    answering.start()

    with pytest.raises(ValueError, match="refused"):
        confirmation.result(PATIENCE)

    assert isinstance(confirmation.exception(), ValueError)
    answering.join()


async def test_a_coroutine_may_wait_for_the_answer() -> None:
    """One that has stopped waiting takes nothing from the others."""
    confirmation = Confirmation()
    stopped, waiting = (asyncio.create_task(wait_for(confirmation)) for _ in range(2))
    await asyncio.sleep(0)
    stopped.cancel()
    answering = threading.Timer(0.01, confirmation.set_result, ["7"])
    answering.start()

    assert await waiting == "7"
    assert await confirmation == "7"
    with pytest.raises(asyncio.CancelledError):
        await stopped
    answering.join()


async def wait_for(confirmation: Confirmation) -> str:
    return await confirmation


def test_an_answer_may_come_after_its_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waited is gone: nothing is logged."""
    confirmation = Confirmation()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(wait_for(confirmation), 0.001))

    confirmation.set_result("7")

    assert caplog.text == ""


def test_a_message_knows_its_size() -> None:
    """Of all that Pub/Sub counts."""
    assert OutgoingMessage("t", b"12", {"ä": "b"}, "key").size == 2 + 2 + 1 + 3
