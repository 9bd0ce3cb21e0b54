"""How index and dead-letter subscription are brought in line."""

from __future__ import annotations

from convotic_celery.dead_letters import Match
from convotic_pubsub.outgoing import OutgoingMessage
from tests.integration.dead_letters.conftest import CRM, SHOP, Desk


def test_a_message_without_entry_is_taken_in(desk: Desk) -> None:
    """As if the worker had written the entry."""
    desk.fail({"id": 1}, message_id="m-1", indexed=False)
    assert desk.dead_letters.list().total == 0

    reports = {report.handler: report for report in desk.dead_letters.sync()}

    assert (reports[SHOP].seen, reports[SHOP].taken_in) == (1, 1)
    assert reports[CRM].seen == 0
    assert desk.dead_letters.show("m-1").error_type == "ValueError"
    assert desk.count_dead() == 1
    assert desk.dead_letters.sync(SHOP)[0].taken_in == 0


def test_what_pubsub_has_forwarded_is_taken_in_and_replayed(desk: Desk) -> None:
    """It has no attributes of ours, and names its subscription."""
    policy = {
        "CloudPubSubDeadLetterSourceSubscription": SHOP,
        "CloudPubSubDeadLetterSourceDeliveryCount": "12",
        "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-11-27T10:00:00.5Z",
        "source": "api",
    }
    topic = desk.spec().dead_letter_topic
    message_id = desk.session.publish_confirmed(OutgoingMessage(topic, b'{"id": 1}', policy))

    desk.dead_letters.sync(SHOP)

    found = desk.dead_letters.show(message_id)
    assert (found.reason, found.attempts, found.handler) == ("forwarded-by-pubsub", 12, SHOP)
    assert found.published_at is not None
    assert found.all_attributes == {"source": "api"}
    desk.dead_letters.replay(Match(), by="ada")
    (message,) = desk.pull()
    assert message.attributes["convotic-message-id"] == message_id


def test_an_entry_without_message_is_missing_until_it_is_found(desk: Desk) -> None:
    """Somebody may have acknowledged it by hand."""
    desk.fail({"id": 1}, message_id="m-1")
    desk.fail({"id": 2}, message_id="m-2")
    with desk.session.resources.inspect(desk.spec().dead_letter_topic) as inspection:
        gone = [each for each in inspection.pull(10) if b"1" in each.received.data]
        inspection.acknowledge([each.ack_id for each in gone])

    (report,) = desk.dead_letters.sync(SHOP)

    assert (report.missing, report.is_complete) == (1, True)
    assert [each.message_id for each in desk.dead_letters.list().items] == ["m-2"]
    (missing,) = desk.dead_letters.list(Match(state="missing")).items
    assert missing.message_id == "m-1"
    desk.fail({"id": 1}, message_id="m-1", indexed=False)
    desk.dead_letters.sync(SHOP)
    assert desk.dead_letters.list().total == 2


def test_nothing_is_called_missing_while_others_hold_messages(desk: Desk) -> None:
    """A message that somebody has leased can't be seen."""
    desk.fail({"id": 1})
    with desk.session.resources.inspect(desk.spec().dead_letter_topic) as other:
        assert len(other.pull(10)) == 1

        (report,) = desk.dead_letters.sync(SHOP)

        assert (report.seen, report.missing, report.is_complete) == (0, 0, False)
    assert desk.dead_letters.list().total == 1


def test_the_message_of_a_killed_replay_is_acknowledged_by_a_sync(desk: Desk) -> None:
    """Its entry says that it is published; a second replay does not publish it again."""
    desk.fail({"id": 1}, message_id="m-1")
    desk.dead_letters._index.move(
        [desk.dead_letters.show("m-1").id], to="replayed", of=("open",), action="replay", by="ada"
    )

    (report,) = desk.dead_letters.sync(SHOP)

    assert (report.acknowledged, report.missing) == (1, 0)
    assert desk.count_dead() == 0
    assert desk.dead_letters.replay(Match(), by="ada").total == 0


def test_without_the_store_a_list_is_a_sample(desk: Desk) -> None:
    """It says so; what is listed stays in its subscription."""
    desk.fail({"id": 1}, message_id="m-1", source="api")
    desk.fail({"id": 2}, error="KeyError")
    desk.app.store.close()
    index = desk.dead_letters._index
    index._database._store._url = "redis://127.0.0.1:1"
    index._database._store._provide_url = "redis://127.0.0.1:1"

    page = desk.dead_letters.list(Match(attributes={"source": "api"}))
    groups = desk.dead_letters.groups()

    assert page.is_sample
    assert [each.message_id for each in page.items] == ["m-1"]
    assert {group.error_type for group in groups} == {"ValueError", "KeyError"}
    assert desk.count_dead() == 2
