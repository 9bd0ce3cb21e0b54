"""What replay, redirect, edit, archive and purge do to messages and entries."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from convotic_celery.dead_letters import Match
from convotic_celery.errors import HandlerNotLoaded, JobTaken, WrongDeadLetterState
from tests.integration.dead_letters.conftest import CRM, SHOP, Desk


def test_a_replay_is_for_its_handler_alone(desk: Desk) -> None:
    """It shows the first publish's id and a genuine token, and the dead letter is gone."""
    desk.fail({"id": 1}, message_id="m-1", source="api")

    job = desk.dead_letters.replay(Match(ids=("m-1",)), by="ada")

    assert (job.state, job.total, job.done, job.collected) == ("done", 1, 1, 1)
    assert desk.pull(CRM) == []
    (message,) = desk.pull(SHOP)
    assert json.loads(message.data) == {"id": 1}
    token = message.attributes["convotic-replay-token"]
    assert message.attributes == {
        "source": "api",
        "convotic-target": SHOP,
        "convotic-message-id": "m-1",
        "convotic-replay-token": token,
        "convotic-replay-count": "1",
    }
    assert len(token) == 32
    assert desk.count_dead() == 0
    found = desk.dead_letters.show("m-1")
    assert (found.state, [(h.action, h.by) for h in found.history]) == (
        "replayed",
        [("replay", "ada")],
    )


def test_only_the_chosen_group_is_replayed(desk: Desk) -> None:
    """The others stay, entries and messages."""
    for number in range(5):
        desk.fail({"id": number})
        desk.fail({"id": number}, error="KeyError")
        desk.fail({"id": number}, handler=CRM)

    job = desk.dead_letters.replay(Match(handler=SHOP, error="KeyError"), by="ada")

    assert (job.total, job.done) == (5, 5)
    assert len(desk.pull(SHOP)) == 5
    assert desk.count_dead(SHOP) == 5
    assert desk.count_dead(CRM) == 5
    assert [(g.handler, g.open) for g in desk.dead_letters.groups()] == [(CRM, 5), (SHOP, 5)]


def test_a_replay_that_fails_again_is_counted(desk: Desk) -> None:
    """It is the same entry, open again, and the group says so."""
    desk.fail({"id": 1}, message_id="m-1")
    desk.dead_letters.replay(Match(), by="ada")

    desk.fail({"id": 1}, message_id="m-1", replays=1)

    (found,) = desk.dead_letters.list().items
    assert (found.state, found.failed_again, len(found.history)) == ("open", 1, 1)
    assert [group.failed_again for group in desk.dead_letters.groups()] == [1]


def test_the_loop_guard_skips_what_was_replayed_too_often(desk: Desk) -> None:
    """It stays a dead letter, and the job says how many were skipped."""
    desk.fail({"id": 1}, replays=3)

    job = desk.dead_letters.replay(Match(), by="ada", max_replays=3)

    assert (job.done, job.skipped) == (0, 1)
    assert desk.count_dead() == 1
    assert desk.dead_letters.replay(Match(), by="ada", max_replays=4).done == 1


def test_a_limit_takes_the_oldest(desk: Desk) -> None:
    """The rest waits for another replay."""
    ids = [desk.fail({"id": number}) for number in range(6)]

    job = desk.dead_letters.replay(Match(), by="ada", limit=2)

    assert job.total == 2
    assert {m.attributes["convotic-message-id"] for m in desk.pull()} == set(ids[:2])
    assert desk.dead_letters.replay(Match(text="stock"), by="ada", limit=1).total == 1
    assert {m.attributes["convotic-message-id"] for m in desk.pull()} == {ids[2]}


def test_what_fails_after_it_began_is_not_swept_in(desk: Desk) -> None:
    """The job is what matched when it began."""
    desk.fail({"id": 1})
    job = desk.dead_letters.begin("replay", Match(), by="ada")
    desk.fail({"id": 2})

    done = desk.dead_letters.resume(job.id)

    assert (done.total, done.done) == (1, 1)
    assert desk.count_dead() == 1


def test_a_job_is_reserved_for_who_began_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is offered to resume it while it chooses, nor before its work starts."""
    desk.fail({"id": 1})
    journal = desk.dead_letters._journal
    choose, seen = journal._choose, []

    def look(job: str, match: Match, limit: int | None) -> int:
        seen.append(journal.read(job))
        with pytest.raises(JobTaken):
            desk.dead_letters.resume(job)
        return choose(job, match, limit)

    monkeypatch.setattr(journal, "_choose", look)
    job = desk.dead_letters.begin("replay", Match(), by="ada")

    assert [(each.state, each.is_abandoned) for each in seen] == [("choosing", False)]
    assert not job.is_abandoned
    assert desk.dead_letters.resume(job.id).state == "done"
    assert not desk.dead_letters.job(job.id).is_abandoned


def test_a_job_that_nobody_works_on_is_cancelled_at_once(desk: Desk) -> None:
    """Whoever comes for it finds it over."""
    desk.fail({"id": 1})
    job = desk.dead_letters.begin("replay", Match(), by="ada")

    assert desk.dead_letters.cancel(job.id, by="bob")

    assert desk.dead_letters.job(job.id).state == "cancelled"
    assert desk.dead_letters.resume(job.id).done == 0


def test_a_cancelled_job_leaves_the_rest(desk: Desk) -> None:
    """What is not published stays as it was, and the job is over."""
    desk.fail({"id": 1})
    job = desk.dead_letters.begin("replay", Match(), by="ada")

    assert desk.dead_letters.cancel(job.id, by="bob")
    done = desk.dead_letters.resume(job.id)

    assert (done.state, done.done) == ("cancelled", 0)
    assert not desk.dead_letters.cancel(job.id, by="bob")
    assert desk.dead_letters.list().total == 1


def test_an_edit_shows_the_difference_and_keeps_the_original(desk: Desk) -> None:
    """The next replay publishes the edited data."""
    desk.fail({"id": 1, "city": "Edinbrugh"}, message_id="m-1")

    diff = desk.dead_letters.edit("m-1", b'{"id": 1, "city": "Edinburgh"}', by="ada")

    assert '-  "city": "Edinbrugh"' in diff
    assert '+  "city": "Edinburgh"' in diff
    assert b"Edinbrugh" in (desk.dead_letters.show("m-1").data or b"")
    desk.dead_letters.replay(Match(), by="ada")
    (message,) = desk.pull()
    assert json.loads(message.data) == {"id": 1, "city": "Edinburgh"}
    with pytest.raises(WrongDeadLetterState):
        desk.dead_letters.edit("m-1", b"{}", by="ada")


def test_an_edit_can_be_undone(desk: Desk) -> None:
    """Then the original is replayed."""
    desk.fail({"id": 1}, message_id="m-1")
    desk.dead_letters.edit("m-1", b"{}", by="ada")
    desk.dead_letters.edit("m-1", None, by="ada")

    desk.dead_letters.replay(Match(), by="ada")

    assert json.loads(desk.pull()[0].data) == {"id": 1}


def test_a_redirect_reaches_the_other_handler(desk: Desk) -> None:
    """With a token that is genuine for that one."""
    desk.fail({"id": 1}, message_id="m-1")

    job = desk.dead_letters.redirect(Match(), CRM, by="ada")

    assert (job.action, job.target, job.done) == ("redirect", CRM, 1)
    assert desk.pull(SHOP) == []
    (message,) = desk.pull(CRM)
    assert message.attributes["convotic-target"] == CRM
    with pytest.raises(HandlerNotLoaded):
        desk.dead_letters.redirect(Match(), "nobody", by="ada")


def test_archive_can_be_undone(desk: Desk) -> None:
    """Archived dead letters are out of sight; their messages stay."""
    desk.fail({"id": 1})

    assert desk.dead_letters.archive(Match(), by="ada") == 1
    assert desk.dead_letters.list().total == 0
    assert desk.dead_letters.replay(Match(), by="ada").total == 0
    assert desk.count_dead() == 1
    assert desk.dead_letters.restore(Match(), by="ada") == 1
    assert desk.dead_letters.list().total == 1
    actions = [line["action"] for line in desk.dead_letters.log()]
    assert actions == ["restore", "replay", "archive"]


def test_a_purge_deletes_entry_and_message(desk: Desk) -> None:
    """For good; the rest stays."""
    desk.fail({"id": 1}, message_id="m-1")
    desk.fail({"id": 2})

    job = desk.dead_letters.purge(Match(ids=("m-1",)), by="ada")

    assert (job.done, job.collected) == (1, 1)
    assert desk.count_dead() == 1
    assert desk.dead_letters.list().total == 1
    assert desk.dead_letters.show("m-1").data is None
    desk.dead_letters.sync()
    assert desk.dead_letters.list().total == 1


def test_what_has_no_copy_is_replayed_from_its_message(desk: Desk) -> None:
    """With the data, which the store does not have."""
    desk.keep_payloads("none")
    desk.fail({"id": 1}, message_id="m-1")
    desk.fail({"id": 2}, error="KeyError")
    assert desk.dead_letters.show("m-1").data is None

    job = desk.dead_letters.replay(Match(error="ValueError"), by="ada")

    assert (job.done, job.collected, job.not_found) == (1, 1, 0)
    (message,) = desk.pull()
    assert json.loads(message.data) == {"id": 1}
    assert desk.count_dead() == 1


def test_a_subscription_without_our_filter_is_warned_of(desk: Desk) -> None:
    """It gets what is replayed, too."""
    foreign = replace(desk.spec(), queue="foreign", subscription="foreign", filter="")
    desk.session.resources.ensure(foreign)
    desk.fail({"id": 1})

    job = desk.dead_letters.replay(Match(), by="ada")

    assert len(job.warnings) == 1
    assert "subscription foreign of topic" in job.warnings[0]
