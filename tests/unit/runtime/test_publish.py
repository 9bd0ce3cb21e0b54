"""Publishing on the process's session, and topics that do not exist yet."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from convotic_celery.errors import InvalidAttribute, TopicHasNoSubscription
from convotic_celery.runtime import publish
from convotic_celery.runtime.publish import HandlerPublisher, SessionPublisher
from convotic_pubsub.errors import PublishError, TopicNotFound
from convotic_pubsub.outgoing import FAIL_IF_MISSING, IfMissing, OutgoingMessage
from tests.support.waiting import PATIENCE
from tests.unit.runtime.support import define


class Session:
    """Stands for the transport's session: topics exist once their queue was declared."""

    def __init__(self, *topics: str) -> None:
        self.topics = {*topics}
        self.ensured: list[str] = []
        self.published: list[OutgoingMessage] = []
        self.closed = False

    def publish(
        self, message: OutgoingMessage, *, if_missing: IfMissing = FAIL_IF_MISSING, **_: Any
    ) -> Future[str]:
        future: Future[str] = Future()
        if message.topic not in self.topics and if_missing.declare:
            self.ensured += if_missing.declare
            self.topics.add(message.topic)
        if message.topic == "broken":
            future.set_exception(PublishError("no"))
        elif message.topic in self.topics:
            self.published.append(message)
            future.set_result(f"m-{len(self.published)}")
        elif if_missing.error is not None:
            future.set_exception(if_missing.error())
        else:
            future.set_exception(TopicNotFound(message.topic))
        return future


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """The process's session; it knows one topic."""
    session = Session("orders.new")
    monkeypatch.setattr(publish, "session_for", lambda _url, _options: session)
    return session


def make_publisher(*definitions: Any, may_create: bool = True) -> SessionPublisher:
    return SessionPublisher(lambda: ("pubsub://unit", {}), definitions, may_create=may_create)


def send(publisher: SessionPublisher, topic: str) -> str:
    return publisher.publish(OutgoingMessage(topic, b"1", {"a": "b"}, "k")).result(PATIENCE)


def test_a_message_is_sent_as_it_is(session: Session) -> None:
    """Topic, data, attributes and key reach the session; its message id comes back."""
    assert send(make_publisher(), "orders.new") == "m-1"
    assert session.published == [OutgoingMessage("orders.new", b"1", {"a": "b"}, "k")]


def test_a_missing_topic_is_created_with_all_known_subscriptions(session: Session) -> None:
    """Every handler of the topic gets the first message."""
    publisher = make_publisher(
        define(topic="orders.old"), define(topic="orders.old", module="crm"), define()
    )

    assert send(publisher, "orders.old") == "m-1"
    assert session.ensured == ["orders.old.shop", "orders.old.crm"]


def test_a_topic_that_nobody_subscribes_to_is_refused(session: Session) -> None:
    """The message would vanish."""
    with pytest.raises(TopicHasNoSubscription):
        send(make_publisher(define()), "orders.nwe")
    assert session.ensured == []


def test_nothing_is_created_where_that_is_not_allowed(session: Session) -> None:
    """provision=verify leaves a missing topic missing."""
    with pytest.raises(TopicNotFound):
        send(make_publisher(define(topic="orders.old"), may_create=False), "orders.old")
    assert session.ensured == []


@pytest.mark.usefixtures("session")
def test_other_errors_are_the_callers() -> None:
    """What the server refuses raises."""
    with pytest.raises(PublishError):
        send(make_publisher(), "broken")


def test_one_handler_is_addressed_by_an_attribute(session: Session) -> None:
    """The filter of every other subscription leaves the message out."""
    publisher = HandlerPublisher(make_publisher(), 1.0)

    publisher.publish(define(), {"id": 1}, {"a": "b"}, "")

    assert session.published == [
        OutgoingMessage("orders.new", b'{"id":1}', {"a": "b", "convotic-target": "orders.new.shop"})
    ]


def test_the_caller_s_attributes_are_checked(session: Session) -> None:
    """Reserved names are refused before anything is sent."""
    publisher = HandlerPublisher(make_publisher(), 1.0)

    with pytest.raises(InvalidAttribute):
        publisher.publish(define(), {"id": 1}, {"convotic-target": "x"}, "")
    assert session.published == []
