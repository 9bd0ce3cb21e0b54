"""Replacing a subscription: no message lost, ids and policy kept, whenever it is cut short."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from convotic_celery.topology.replacement import ReplacementFailed, replace_subscription
from convotic_celery.topology.values import replacement_of, snapshot_of
from convotic_pubsub.client.rpc import pb
from convotic_pubsub.outgoing import OutgoingMessage
from convotic_pubsub.session import Session
from convotic_pubsub.topology import SubscriptionSettings, TopicSettings
from tests.support.waiting import PATIENCE

#: As many things as a replacement says that it does.
SAID = 7
MEMBER = "serviceAccount:worker@shop.iam.gserviceaccount.com"


class Interrupted(BaseException):
    """Ends a replacement as a kill does: nothing is tidied up."""


class Shop:
    """A topic with a subscription that has the wrong filter, and messages in it."""

    def __init__(self, session: Session, members: Iterable[str] = (MEMBER,)) -> None:
        self.session = session
        self.members = set(members)
        self.admin = session.admin
        project = f"projects/{session.options.project}"
        self.topic = f"{project}/topics/orders"
        self.name = f"{project}/subscriptions/orders.crm"
        self.admin.create_topic(TopicSettings(name=self.topic))
        self.old = SubscriptionSettings(
            name=self.name, topic=self.topic, filter='attributes:"old"', ack_deadline_seconds=600
        )
        self.wanted = replace(
            self.old, filter="", enable_message_ordering=True, labels={"convotic": "handler"}
        )
        self.admin.create_subscription(self.old)
        for member in self.members:
            self.admin.add_binding(self.name, "roles/pubsub.subscriber", member)

    def publish(self, count: int) -> list[str]:
        """Publish messages that old and new filter let pass."""
        message = OutgoingMessage(self.topic, b"{}", {"old": "yes"})
        return [self.session.publish_confirmed(message) for _ in range(count)]

    def pull(self, count: int, *, acknowledge: bool = True) -> list[str]:
        """Take messages from the subscription."""

        async def pull() -> Any:
            rpc = self.session.broker.rpc
            request = pb.PullRequest(
                subscription=self.name, max_messages=count, return_immediately=True
            )
            answer = await rpc.pull(request, timeout=PATIENCE)
            if acknowledge and answer.received_messages:
                await rpc.acknowledge(self.name, [m.ack_id for m in answer.received_messages])
            return answer

        answer = self.session.call(pull())
        return [each.message.message_id for each in answer.received_messages]

    def replace(self, *, stop_at: int = 0, stale_seconds: float = 0.0) -> list[str]:
        """Replace the subscription, or end at the n-th thing that is said; return what was."""
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            if len(said) == stop_at:
                raise Interrupted

        replace_subscription(self.admin, self.wanted, say, stale_seconds=stale_seconds)
        return said

    def check(self, expected: Iterable[str]) -> None:
        """Assert that the subscription is as wanted, with these messages, and nothing is left."""
        existing = self.admin.get_subscription(self.name)
        assert existing is not None
        assert existing.filter == ""
        assert existing.enable_message_ordering == self.wanted.enable_message_ordering
        assert existing.labels == {"convotic": "handler"}
        bindings = self.admin.bindings(self.name)
        assert {member for each in bindings for member in each.members} == self.members
        assert sorted(self.pull(1000)) == sorted(expected)
        assert self.admin.get_subscription(replacement_of(self.name)) is None
        assert self.admin.get_snapshot_labels(snapshot_of(self.name)) is None


@pytest.fixture
def shop(session: Session) -> Shop:
    """A shop with its subscription."""
    return Shop(session)


def test_messages_ids_and_policy_survive(shop: Shop) -> None:
    """What was not acknowledged is delivered with the id that it had; what was is not."""
    ids = shop.publish(20)
    done = shop.pull(5)
    shop.pull(5, acknowledge=False)  # leased by a worker at the time

    said = shop.replace()

    assert len(said) == SAID
    shop.check(set(ids) - set(done))


@pytest.mark.google_emulator
@pytest.mark.parametrize("session", ["google_emulator"], indirect=True)
def test_what_the_server_refuses_changes_nothing(session: Session) -> None:
    """Google's emulator puts no unordered messages into a subscription with ordering."""
    shop = Shop(session, members=())
    ids = shop.publish(5)

    with pytest.raises(ReplacementFailed, match=r"orders\.crm is as it was: .*ordering"):
        shop.replace()

    assert shop.admin.get_subscription(shop.name) == shop.old
    assert sorted(shop.pull(1000)) == sorted(ids)
    assert shop.admin.get_subscription(replacement_of(shop.name)) is None
    assert shop.admin.get_snapshot_labels(snapshot_of(shop.name)) is None


@pytest.mark.parametrize("stop_at", range(1, SAID + 1))
def test_it_is_cut_short_anywhere_and_goes_on(shop: Shop, stop_at: int) -> None:
    """Killed before any step: the next one completes it, and messages in between are not lost."""
    ids = shop.publish(5)
    with pytest.raises(Interrupted):
        shop.replace(stop_at=stop_at)
    ids += shop.publish(5)

    shop.replace()

    shop.check(ids)


def test_it_is_cut_short_twice(shop: Shop) -> None:
    """Also the one that goes on may be killed."""
    ids = shop.publish(5)
    for stop_at in (5, 4):
        with pytest.raises(Interrupted):
            shop.replace(stop_at=stop_at)
        ids += shop.publish(2)

    shop.replace()

    shop.check(ids)


def test_what_is_done_is_not_put_back_again(shop: Shop) -> None:
    """Killed after the messages are back: those acknowledged since are not delivered once more."""
    shop.publish(5)
    with pytest.raises(Interrupted):
        shop.replace(stop_at=SAID)  # all that is left is to tidy up
    assert len(shop.pull(1000)) == 5

    shop.replace()

    shop.check([])


def test_several_at_once_do_it_once(shop: Shop) -> None:
    """One works, the others wait for it."""
    ids = shop.publish(20)

    def run(_number: int) -> bool:
        return replace_subscription(shop.admin, shop.wanted, lambda _: None, stale_seconds=30)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(run, range(4)))

    assert any(outcomes)
    shop.check(ids)


def test_an_old_worker_that_makes_it_again_is_outlasted(shop: Shop) -> None:
    """With provision=create it makes what is missing, with its own settings."""
    ids = shop.publish(5)
    recreated: list[bool] = []

    def say(text: str) -> None:
        if text == "create orders.crm again" and len(recreated) < 3:
            recreated.append(shop.admin.create_subscription(shop.old))

    replace_subscription(shop.admin, shop.wanted, say)

    assert recreated == [True, True, True]
    shop.check(ids)


def test_nothing_is_deleted_when_its_safety_is_gone(shop: Shop) -> None:
    """Somebody has tidied up the snapshot: the subscription stays as it was."""
    ids = shop.publish(5)

    def say(text: str) -> None:
        if text == "delete orders.crm":
            shop.admin.delete_subscription(replacement_of(shop.name))

    with pytest.raises(ReplacementFailed, match=r"is as it was\. Apply again"):
        replace_subscription(shop.admin, shop.wanted, say)

    assert shop.admin.get_subscription(shop.name) == shop.old
    assert sorted(shop.pull(1000)) == sorted(ids)
