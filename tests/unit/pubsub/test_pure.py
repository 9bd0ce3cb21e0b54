"""The pure parts: codec, names, options, topic patterns, batches."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convotic_pubsub.celery.codec import decode_envelope, encode_envelope
from convotic_pubsub.celery.routing import topic_matches
from convotic_pubsub.client.rpc import pb
from convotic_pubsub.consume import acks
from convotic_pubsub.consume.acks import AckBatcher
from convotic_pubsub.errors import OptionError
from convotic_pubsub.limits import cut_utf8, fit_attributes, message_bytes
from convotic_pubsub.names import check_resource_id, resource_id
from convotic_pubsub.options import parse_options
from tests.support.generated import patient
from tests.support.waiting import wait_until_async


@patient
@given(st.one_of(st.text(), st.binary()), st.integers(0, 9))
def test_an_envelope_survives_the_wire(body: str | bytes, priority: int) -> None:
    """Text and binary bodies come back as what they were."""
    message = {
        "body": body,
        "content-type": "x",
        "content-encoding": "y",
        "headers": {"id": "1"},
        "properties": {"priority": priority, "delivery_info": {}},
    }

    assert decode_envelope(encode_envelope(message)) == message


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"1", b'{"body": 1, "headers": 2, "properties": 3}', b"\xff"]
)
def test_what_is_no_envelope_is_a_value_error(data: bytes) -> None:
    """Foreign data never escapes as another kind of error."""
    with pytest.raises(ValueError, match=r"."):
        decode_envelope(data)


@patient
@given(st.text(), st.integers(0, 50))
def test_cutting_never_splits_a_character(text: str, limit: int) -> None:
    """What is cut is a prefix within the limit."""
    cut = cut_utf8(text, limit)

    assert len(cut.encode("utf-8", "replace")) <= limit
    assert text.encode("utf-8", "replace").decode().startswith(cut) or text.startswith(cut)


def test_added_attributes_fill_what_is_left_in_their_order() -> None:
    """The user's 98 stay; the first two of ours fit, the third does not; values are cut."""
    user = {f"k{n}": "v" for n in range(98)}

    fitted = fit_attributes(b"data", user, {"a": "x" * 2000, "b": "2", "c": "3"})

    assert len(fitted) == 100
    assert fitted["a"] == "x" * 1024
    assert "c" not in fitted
    assert fit_attributes(b"x" * 9_999_999, {}, {"reason": "r"}) == {}


REASON = "convotic-dead-letter-reason"


@pytest.mark.parametrize(
    ("data_bytes", "kept"),
    [
        (10_000_000 - len(REASON) - 1, "x"),  # no room for a longer one
        (10_000_000 - len(REASON) - len("rejected"), "rejected"),
    ],
)
def test_an_attribute_that_replaces_another_counts_what_it_adds(data_bytes: int, kept: str) -> None:
    """A dead letter of 10,000,000 bytes with a reason of its own stays within the limit."""
    data = bytes(data_bytes)

    fitted = fit_attributes(data, {REASON: "x"}, {REASON: "rejected"})

    assert fitted == {REASON: kept}
    assert message_bytes(data, fitted) <= 10_000_000


@patient
@given(st.text(min_size=1, max_size=60))
def test_every_queue_name_has_a_resource_of_its_own(queue: str) -> None:
    """Any kombu queue name maps to a valid id, and different names to different ids."""
    name = resource_id(queue)

    assert check_resource_id("queue", name) == name
    assert resource_id(queue + "x") != name


def test_ordinary_names_are_kept() -> None:
    """What Pub/Sub takes is not changed; what it refuses is."""
    assert resource_id("celery") == "celery"
    assert resource_id("celery", "shop.") == "shop.celery"
    assert resource_id("a") == "q~a"
    assert resource_id("q~a") == "q~q~a"
    assert resource_id("google") == "q~google"
    assert resource_id("übung/1") == "q~%C3%BCbung%2F1"
    with pytest.raises(OptionError, match="255 characters"):
        check_resource_id("topic", "1x")


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("#", "", True),
        ("#", "a.b", True),
        ("worker.#", "worker", True),
        ("worker.#", "worker.a.b", True),
        ("worker.#", "workers.a", False),
        ("*.b", "a.b", True),
        ("*.b", "a.c.b", False),
        ("#.b", "a.c.b", True),
        ("#.b", "ab", False),
        ("a.*.c", "a.c", False),
        ("", "", True),
    ],
)
def test_topic_patterns_match_as_in_amqp(pattern: str, key: str, fits: bool) -> None:
    """``*`` is exactly one word, ``#`` none or more."""
    assert topic_matches(pattern, key) is fits


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("pubsub://", {}, "names no project"),
        ("pubsub://p/q", {}, "nothing after the project"),
        ("pubsub://u:p@p", {}, r"URL 'pubsub://\*\*\*@p': .*nothing after the project"),
        ("pubsub://p", {"provision": "maybe"}, "create, verify, off"),
        ("pubsub://p", {"visibility_timeout_seconds": 5}, "10..600"),
        ("pubsub://p", {"emulatorhost": "x"}, "did you mean 'emulator_host'"),
        ("pubsub://p", {"visibility_timeout_seconds": "60"}, "10..600"),
        ("pubsub://p", {"publish_timeout_seconds": 0}, "publish_timeout_seconds=0: seconds"),
        ("pubsub://p", {"max_lease_seconds": True}, "max_lease_seconds=True: seconds"),
        ("pubsub://p", {"default_max_outstanding": 0.5}, "whole number, at least 1"),
        ("pubsub://p", {"emulator_host": "http://h:1"}, "HOST:PORT, a callable"),
        ("pubsub://p", {"endpoint": "europe-west1-pubsub.googleapis.com"}, "HOST:PORT, as"),
        ("pubsub://p", {"pull_mode": "push"}, "auto, stream, unary"),
        ("pubsub://p", {"prefix": None}, "prefix=None: a text"),
        ("pubsub://p", {"labels": {"Team": "a"}}, "lower-case letters"),
        ("pubsub://p", {"labels": ["team"]}, "a mapping of names"),
        ("pubsub://p", {"message_storage_regions": "europe-west1"}, "a list of regions"),
        ("pubsub://p", {"message_storage_regions": ["EU"]}, "a list of regions"),
        ("pubsub://p", {"queues": {"q": "topic"}}, "each QueueSpec's name"),
        ("pubsub://p", {"credentials_file": 1}, "path of a key file"),
    ],
)
def test_options_that_can_not_be_used_are_named(
    url: str, options: dict[str, Any], text: str
) -> None:
    """Each error says what, where and what to do."""
    with pytest.raises(OptionError, match=text):
        parse_options(url, options, environ={})


def test_options_that_can_be_used_are_taken_and_frozen() -> None:
    """What the documents show; a list is a tuple then, fit for a session's key."""
    options = parse_options(
        "pubsub://p",
        {
            "emulator_host": "[::1]:8085",
            "endpoint": "europe-west1-pubsub.googleapis.com:443",
            "labels": {"team": "shop", "größe": "2"},
            "message_storage_regions": ["europe-west1", "us-east4"],
            "publish_timeout_seconds": 5,
            "credentials_file": None,
        },
        environ={},
    )

    assert options.message_storage_regions == ("europe-west1", "us-east4")


def test_the_environment_names_emulator_and_project() -> None:
    """As Google's own clients do; an option wins."""
    environ = {"PUBSUB_EMULATOR_HOST": "h:1", "GOOGLE_CLOUD_PROJECT": "from-env"}

    assert parse_options("pubsub://", {}, environ).project == "from-env"
    assert parse_options("pubsub://p", {"max_retries": 3}, environ).emulator_host == "h:1"
    assert parse_options("pubsub://p", {"emulator_host": "o:2"}, environ).emulator_host == "o:2"


async def test_acks_gather_while_a_request_is_under_way_and_split_at_the_limit() -> None:
    """The first ack leaves alone; what gathers behind it goes in requests of at most 1,000."""
    sizes: list[int] = []
    gate = asyncio.Event()

    class Rpc:
        async def acknowledge(self, _path: str, ids: list[str]) -> None:
            sizes.append(len(ids))
            await gate.wait()

    batcher = AckBatcher(Rpc, "projects/p/subscriptions/s")  # type: ignore[arg-type]
    confirmed: list[bool] = []
    batcher.ack("first", confirmed.append, is_urgent=True)
    await asyncio.sleep(0)
    for number in range(2500):
        batcher.ack(str(number), confirmed.append, is_urgent=True)
    gate.set()
    await batcher.wait_idle()

    assert sizes == [1, 1000, 1000, 500]
    assert confirmed == [True] * 2501
    assert batcher.idle


async def test_acks_gather_for_a_while_unless_one_is_urgent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer sends no small batch: that leaves with an urgent one, in time, or at the end."""
    sizes: list[int] = []

    class Rpc:
        async def acknowledge(self, _path: str, ids: list[str]) -> None:
            sizes.append(len(ids))

    batcher = AckBatcher(Rpc, "projects/p/subscriptions/s")  # type: ignore[arg-type]
    confirmed: list[bool] = []
    batcher.ack("first", confirmed.append, is_urgent=False)
    await wait_until_async(lambda: len(confirmed) == 1)

    monkeypatch.setattr(acks, "_GATHER_SECONDS", 3600.0)
    for number in range(49):
        batcher.ack(str(number), confirmed.append, is_urgent=False)
        await asyncio.sleep(0)
    assert sizes == [1]
    batcher.ack("urgent", confirmed.append, is_urgent=True)
    await wait_until_async(lambda: len(confirmed) == 51)
    for number in range(3):
        batcher.ack(f"more-{number}", confirmed.append, is_urgent=False)
        await asyncio.sleep(0)
    assert sizes == [1, 50]
    await batcher.wait_idle()

    assert sizes == [1, 50, 3]
    assert confirmed == [True] * 54
    monkeypatch.undo()
    for number in range(2):
        batcher.ack(f"last-{number}", confirmed.append, is_urgent=False)
    await wait_until_async(lambda: len(confirmed) == 56)


async def test_acknowledgements_cover_the_distance() -> None:
    """While requests are under way for long, further ones leave; no more than a few dozen."""
    under_way: list[asyncio.Future[None]] = []

    class Rpc:
        async def acknowledge(self, _path: str, _ids: list[str]) -> None:
            under_way.append(asyncio.get_running_loop().create_future())
            await under_way[-1]

    def has_sent(count: int) -> bool:
        return len(under_way) >= count

    batcher = AckBatcher(Rpc, "projects/p/subscriptions/s")  # type: ignore[arg-type]
    confirmed: list[bool] = []
    for number in range(20):
        batcher.ack(str(number), confirmed.append, is_urgent=True)
        await wait_until_async(partial(has_sent, min(number + 1, 16)))

    assert len(under_way) == 16
    for each in under_way:
        each.set_result(None)
    await wait_until_async(lambda: len(under_way) == 17)
    under_way[-1].set_result(None)
    await batcher.wait_idle()

    assert confirmed == [True] * 20


async def test_a_request_of_long_ack_ids_stays_below_512_kib() -> None:
    """Exactly-once delivery may have long ids; no limit of theirs is documented."""
    sizes: list[int] = []

    class Rpc:
        async def modify_ack_deadline(self, path: str, ids: list[str], seconds: int) -> None:
            request = pb.ModifyAckDeadlineRequest(
                subscription=path, ack_ids=ids, ack_deadline_seconds=seconds
            )
            sizes.append(request.ByteSize())

    batcher = AckBatcher(Rpc, "projects/p/subscriptions/s")  # type: ignore[arg-type]
    confirmed: list[bool] = []
    for number in range(900):
        batcher.modify(f"{number:01000}", 60, confirmed.append)
    await batcher.wait_idle()

    assert len(sizes) == 2
    assert max(sizes) <= 512 * 1024
    assert confirmed == [True] * 900
