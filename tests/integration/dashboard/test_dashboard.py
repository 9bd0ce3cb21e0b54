"""What the dashboard tells and does, on real embedded servers and without a worker."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from convotic_celery.app import ConvoticApp
from convotic_celery.dead_letters.entry import entry_id
from convotic_celery.runtime.delivery.observing import MessageSettled, ObservedMessage
from convotic_celery.runtime.delivery.payload import task_id_of, unknown_facts
from convotic_celery.runtime.delivery.settlement import Ack, Fail, Settlement
from tests.integration.dashboard.conftest import QUEUE, MakePage, Page
from tests.support.waiting import wait_until_async

ORDER = '{"id": 1, "city": "Edinburgh"}'


async def row_of(page: Page, queue: str = QUEUE) -> dict[str, Any]:
    """Return a handler's row."""
    rows = (await page.get("handlers"))["handlers"]
    found: dict[str, Any] = next(row for row in rows if row["name"] == queue)
    return found


async def known_row_of(page: Page) -> dict[str, Any]:
    """Return a handler's row once the store has answered: a request does not wait for that long."""

    async def find() -> Any:
        row = await row_of(page)
        return None if None in (row["dead_letters"], row["paused"]) else row

    found: dict[str, Any] = await wait_until_async(find)
    return found


async def test_what_is_published_waits(page: Page) -> None:
    """For each handler of the topic; and the handler's row says for how long."""
    sent = await page.post("publish", {"handler": QUEUE, "data": ORDER, "attributes": {"a": "b"}})

    assert sent["id"].isdigit()
    await wait_for_messages(page, QUEUE, 1)
    assert await has_waiting(page, f"{QUEUE}.index", 1)
    row = await known_row_of(page)
    assert row["oldest_seconds"] >= 0
    assert (row["dead_letters"], row["paused"]) == (0, False)


async def has_waiting(page: Page, queue: str, number: int) -> bool:
    """Say whether so many messages wait."""
    return bool((await row_of(page, queue))["messages"] == number)


async def wait_for_messages(page: Page, queue: str, number: int) -> None:
    """Wait until so many messages wait."""

    async def are_there() -> bool:
        return await has_waiting(page, queue, number)

    arrived: bool = await wait_until_async(are_there)
    assert arrived


async def test_only_one_handler_gets_it(page: Page) -> None:
    """If the page says so."""
    await page.post("publish", {"handler": QUEUE, "data": ORDER, "only_handler": True})

    await wait_for_messages(page, QUEUE, 1)
    assert await has_waiting(page, f"{QUEUE}.index", 0)


async def test_what_does_not_fit_is_asked_about(page: Page) -> None:
    """The model's complaint comes back, and it can be published nevertheless."""
    wanted = {"handler": QUEUE, "data": '{"id": "x"}'}

    refused = await page.post("publish", wanted, status=422)

    assert refused["may_publish_anyway"]
    assert "city" in refused["error"]
    assert (await page.post("publish", {**wanted, "even_if_invalid": True}))["id"]


MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"handler": QUEUE, "data": "{"}, "not JSON"),
    ({"handler": QUEUE, "data": "NaN"}, "not JSON"),
    ({"topic": "nobody.listens", "data": "1"}, "nobody.listens"),
    ({"topic": "a b", "data": "1"}, "a b"),
    ({"handler": QUEUE, "data": ORDER, "attributes": {"googfoo": "1"}}, "goog"),
    ({"handler": QUEUE, "data": ORDER, "delay_seconds": -1}, "delay"),
    ({"handler": QUEUE, "data": ORDER, "colour": 1}, "colour"),
    ({"handler": QUEUE}, "data"),
)


async def test_mistakes_are_explained(page: Page) -> None:
    """In one sentence that names what is wrong."""
    for body, text in MISTAKES:
        assert text in (await page.post("publish", body, status=400))["error"]


async def test_a_handler_is_described(page: Page) -> None:
    """Its names, its options with those that are set, and an example of its payload."""
    about = await page.get(f"handlers/{QUEUE}")

    assert about["description"] == "Process an order."
    assert about["dead_letter_topic"] == f"{QUEUE}.dead-letter"
    assert about["siblings"] == [f"{QUEUE}.index"]
    assert about["example"] == {"id": 1, "city": "text"}
    chosen = {each["name"]: each["value"] for each in about["options"] if each["is_set"]}
    assert chosen["concurrency"] == 3
    await page.get("handlers/custom.orders.gone", status=404)


async def test_delayed_messages_are_seen_and_cancelled(page: Page) -> None:
    """With their data, pretty; a second cancel says that it is too late."""
    wanted = {"handler": QUEUE, "data": ORDER, "delay_seconds": 600}
    sent = await page.post("publish", wanted)

    listed = await page.get("delayed")
    one = await page.get(f"delayed/{sent['id']}")

    assert sent["is_delayed"]
    assert (listed["total"], listed["items"][0]["topic"]) == (1, "custom.orders.new")
    assert one["data"] == '{\n  "id": 1,\n  "city": "Edinburgh"\n}'
    assert await page.get("badges") == {"delayed": 1, "dead-letters": 0}
    assert (await page.post(f"delayed/{sent['id']}/cancel"))["cancelled"]
    assert not (await page.post(f"delayed/{sent['id']}/cancel"))["cancelled"]
    await page.get(f"delayed/{sent['id']}", status=404)
    await page.get("delayed/17", status=400)


async def test_a_workflows_run_is_seen_step_by_step(page: Page) -> None:
    """All its steps, also those that have not begun; a failed one is resumed."""
    workflows = page.app.services.async_workflows(page.app.services.async_pubsub())
    run = await workflows.start("fulfil", {"order": 7}, run_id="order/7")
    await workflows.fail(run.id, 0, "ValueError: no")

    listed = await page.get("workflows", status_="", name="fulfil")
    one = await page.get("workflows/order%2F7")

    assert listed["workflows"] == ["fulfil"]
    assert [each["id"] for each in listed["items"]] == ["order/7"]
    assert (one["status"], one["error"]) == ("failed", "ValueError: no")
    assert (one["steps"], one["input"]) == (["reserve", "ship"], {"order": 7})
    assert (await page.post("workflows/order%2F7/resume"))["status"] == "running"
    await page.get("workflows/unknown", status=404)
    await page.get("workflows", status=400, cursor="x")


async def test_payloads_can_be_hidden(make_page: MakePage) -> None:
    """In delayed messages, runs and dead letters; nor can they be searched or edited."""
    page = await make_page(dashboard_payloads=False)
    sent = await page.post(
        "publish",
        {"handler": QUEUE, "data": ORDER, "attributes": {"a": "b"}, "delay_seconds": 600},
    )
    workflows = page.app.services.async_workflows(page.app.services.async_pubsub())
    await workflows.start("fulfil", {"secret": 7}, run_id="r")

    one = await page.get(f"delayed/{sent['id']}")
    run = await page.get("workflows/r")

    assert (one["data"], one["attributes"]) == (None, None)
    assert run["input"] is None
    await page.get("dead-letters", status=403, search="data.id=1")
    await page.post("dead-letters/entry/x/edit", {"data": "1"}, status=403)


async def test_read_only_refuses_every_change(make_page: MakePage) -> None:
    """And shows everything."""
    page = await make_page(dashboard_read_only=True)

    assert (await page.get("deployment"))["read_only"]
    await page.post("publish", {"handler": QUEUE, "data": ORDER}, status=403)
    await page.post("dead-letters/replay", status=403)
    assert (await page.get("handlers"))["handlers"]


async def test_a_paused_handler_is_shown_as_such(page: Page) -> None:
    """As `convotic pause` has left it."""
    await asyncio.to_thread(page.app.pauses.add, QUEUE)

    assert (await known_row_of(page))["paused"]


@pytest.mark.google_emulator
async def test_what_nobody_tells_is_not_zero(make_page: MakePage, google_emulator: str) -> None:
    """Google's emulator has no queue lengths, and a worker that does not answer no counts."""
    page = await make_page(
        broker_url=f"pubsub://p-{uuid.uuid4().hex[:8]}",
        pubsub_emulator_host=google_emulator,
        remote_control=True,
    )
    await page.post("publish", {"handler": QUEUE, "data": ORDER})

    async def all_have_answered() -> Any:
        """Give the answer once emulator, workers and store were asked."""
        found = await page.get("handlers")
        asked = (found["workers"]["count"], found["backlogs"]["age_seconds"])
        return None if None in (*asked, found["handlers"][0]["dead_letters"]) else found

    answer: Any = await wait_until_async(all_have_answered)

    unknown = ("messages", "leased", "oldest_seconds", "dead_letters_waiting")
    for row in answer["handlers"]:
        assert {row[name] for name in (*unknown, "running", "outcomes")} == {None}
    assert row["dead_letters"] == 0  # the store's
    assert answer["workers"]["count"] == 0
    assert "Queue lengths are not known" in answer["backlogs"]["problem"]
    assert answer["backlogs"]["age_seconds"] == pytest.approx(0, abs=60)


def note_outcome(app: ConvoticApp, message_id: str, settlement: Settlement) -> None:
    """Note how a message ended, as a worker does."""
    (definition,) = (each for each in app.definitions if each.queue == QUEUE)
    facts = unknown_facts(message_id)
    message = ObservedMessage(definition, facts, task_id_of(QUEUE, message_id))
    app.last_outcomes.message_settled(MessageSettled(message, settlement, time.time()))


async def test_last_outcomes_are_those_of_the_store(make_page: MakePage) -> None:
    """The newest first, a dead letter with its page; none is kept where that is set."""
    page = await make_page()
    note_outcome(page.app, "0", Ack("succeeded"))
    note_outcome(page.app, "1", Fail("max-retries-exceeded", 3, "ValueError"))
    await asyncio.to_thread(page.app.last_outcomes.flush)

    found = await page.get(f"outcomes/{QUEUE}")

    assert found["is_on"]
    dead, done = found["items"]
    assert (dead["outcome"], dead["reason"], dead["message_id"]) == (
        "dead_lettered",
        "ValueError",
        "1",
    )
    assert dead["dead_letter"] == entry_id(QUEUE, "1")
    assert (done["outcome"], done["dead_letter"], done["attempt"]) == ("succeeded", None, 1)
    await page.get("outcomes/custom.orders.gone", status=404)
    silent = await make_page(last_outcomes=0)
    assert not (await silent.get(f"outcomes/{QUEUE}.index"))["is_on"]


async def test_without_the_store_the_rest_is_shown(make_page: MakePage) -> None:
    """What is in the store is said to be unavailable; handlers and queue lengths are there."""
    page = await make_page(redis_url="redis://127.0.0.1:1/0", store_timeout=0.2)
    await page.post("publish", {"handler": QUEUE, "data": ORDER})

    async def find() -> Any:
        found = await page.get("handlers")
        return found if found["store"]["problem"] else None

    answer: Any = await wait_until_async(find)

    assert len(answer["handlers"]) == 3
    row = await row_of(page)
    assert (row["dead_letters"], row["paused"], row["running"]) == (None, None, None)
    assert "store" in (await page.get("delayed", status=503))["error"]
    assert await page.get("badges") == {}
