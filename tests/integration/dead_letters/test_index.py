"""What the index knows, and how it is asked."""

from __future__ import annotations

import pytest

from convotic_celery.dead_letters import Match, job_scripts
from convotic_celery.errors import DeadLetterNotFound, InvalidField
from tests.integration.dead_letters.conftest import CRM, SHOP, Desk


def test_a_dead_letter_is_listed_with_all_that_is_known(desk: Desk) -> None:
    """Handler, reason, error, stack, ids, times, attempts, attributes and payload."""
    desk.fail({"id": 1, "städte": "Zürich"}, message_id="m-1", source="api")

    (found,) = desk.dead_letters.list().items

    assert (found.handler, found.reason, found.message_id) == (SHOP, "max-retries-exceeded", "m-1")
    assert (found.error_type, found.error_message) == ("ValueError", "no stock")
    assert found.stack == ("shop:process", "stock:ValueError")
    assert (found.attempts, found.state, found.failed_again) == (3, "open", 0)
    assert found.attributes == {"source": "api"}
    assert found.data is not None
    assert found.data.startswith(b'{"id": 1')
    assert desk.dead_letters.show("m-1") == desk.dead_letters.show(found.id) == found


def test_data_that_is_no_text_is_kept(desk: Desk) -> None:
    """Bytes that are not UTF-8, and no data with an attribute only."""
    desk.fail(b"\xff\x00\xfe", message_id="binary")
    desk.fail(b"", message_id="empty")

    assert desk.dead_letters.show("binary").data == b"\xff\x00\xfe"
    assert desk.dead_letters.show("binary").to_json()["data_base64"] == "/wD+"
    assert desk.dead_letters.show("empty").data == b""


def test_the_same_dead_letter_written_twice_is_one_entry(desk: Desk) -> None:
    """A crash between publish and acknowledgement publishes it again."""
    for _ in range(2):
        desk.fail({"id": 1}, message_id="m-1")

    page = desk.dead_letters.list()

    assert (len(page.items), page.total) == (1, 1)


def test_one_message_can_be_a_dead_letter_of_two_handlers(desk: Desk) -> None:
    """Each handler has its own entry; both are found by the message's id."""
    desk.fail({"id": 1}, message_id="m-1")
    desk.fail({"id": 1}, message_id="m-1", handler=CRM)

    found = desk.dead_letters.list(Match(ids=("m-1",))).items

    assert {each.handler for each in found} == {SHOP, CRM}


def test_groups_have_the_same_cause(desk: Desk) -> None:
    """Handler, reason, error and stack make a group; the text of the error does not."""
    for number in range(3):
        desk.fail({}, text=f"order {number} has no stock")
    desk.fail({}, error="KeyError")
    desk.fail({}, handler=CRM)

    groups = desk.dead_letters.groups()

    assert [(g.handler, g.error_type, g.open) for g in groups] == [
        (CRM, "ValueError", 1),
        (SHOP, "KeyError", 1),
        (SHOP, "ValueError", 3),
    ]
    assert groups[-1].error_message == "order 2 has no stock"


#: What is asked for, and which of the three of :func:`test_filters` have it.
FILTERS: list[tuple[Match, set[str]]] = [
    (Match(handler=CRM), {"c"}),
    (Match(reason="invalid"), {"b"}),
    (Match(error="shop.errors.NoStock"), {"b", "c"}),
    (Match(error="NoStock"), {"b", "c"}),
    (Match(error="Stock"), set()),
    (Match(attributes={"source": "api"}), {"a", "c"}),
    (Match(attributes={"source": "api"}, error="NoStock"), {"c"}),
    (Match(payload={"customer.city": "Edinburgh"}), {"a"}),
    (Match(payload={"lines[1].sku": "x-2"}), {"a"}),
    (Match(payload={"id": "2", "paid": "true"}), {"b"}),
    (Match(payload={"id": "2", "paid": "false"}), set()),
    (Match(text="unknown sku"), {"b"}),
    (Match(text="stock:ValueError"), {"a"}),
    (Match(older_than=3600), set()),
    (Match(newer_than=3600), {"a", "b", "c"}),
    (Match(ids=("a", "nobody")), {"a"}),
    (Match(state="archived"), set()),
]


def test_filters(desk: Desk) -> None:
    """All that is given must apply, in a list and in what is counted."""
    lines = [{"sku": "x-1"}, {"sku": "x-2"}]
    desk.fail(
        {"id": 1, "customer": {"city": "Edinburgh"}, "lines": lines}, message_id="a", source="api"
    )
    desk.fail(
        {"id": 2, "paid": True},
        message_id="b",
        reason="invalid",
        error="shop.errors.NoStock",
        text="unknown sku",
    )
    desk.fail(b"no json", message_id="c", handler=CRM, error="shop.errors.NoStock", source="api")

    for match, expected in FILTERS:
        listed = {each.message_id for each in desk.dead_letters.list(match).items}
        exported = {each.message_id for each in desk.dead_letters.export(match)}
        count = desk.dead_letters.count(match)
        assert (listed, exported, count) == (expected, expected, len(expected)), match


def test_pages_have_all_once(desk: Desk) -> None:
    """Newest first, without gaps and without repetition, whatever the filter."""
    ids = [desk.fail({"id": number}) for number in range(25)]
    desk.fail({}, handler=CRM, error="KeyError", text="other")

    for match in (Match(), Match(error="ValueError"), Match(text="stock")):
        seen, cursor = [], ""
        while True:
            page = desk.dead_letters.list(match, limit=4, cursor=cursor)
            seen += [each.message_id for each in page.items]
            cursor = page.next_cursor
            if not cursor:
                break

        assert [each for each in seen if each in ids] == ids[::-1], match
        assert len(seen) == len(set(seen)), match
        with pytest.raises(InvalidField, match="'zzz' is not a cursor"):
            desk.dead_letters.list(match, cursor="zzz")


def test_a_job_may_choose_of_more_groups_than_lua_unpacks(desk: Desk) -> None:
    """Each stack is a group of its own, and the index keeps 10,000 of them."""
    desk.fail({}, message_id="m-1")
    (group,) = desk.dead_letters.groups()
    none = [f"group:{number}:open" for number in range(9_000)]

    chosen = desk.dead_letters._journal.run(
        job_scripts.CHOOSE, "job", 60, "+inf", 0, "", *none, f"group:{group.id}:open"
    )

    assert chosen == 1


def test_an_unknown_id_is_an_error_that_says_what_to_do(desk: Desk) -> None:
    """Neither an entry nor a message has it."""
    with pytest.raises(DeadLetterNotFound, match="convotic dlq sync"):
        desk.dead_letters.show("nobody")
