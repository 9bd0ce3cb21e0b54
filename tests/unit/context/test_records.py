"""Ids, hashes and pages: the pure parts of the services."""

from __future__ import annotations

import collections
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convotic_celery.context.fields import contact_changes, contact_fields, message_content
from convotic_celery.context.paging import Paging
from convotic_celery.context.records import flatten, new_id, new_token, parse_contact
from convotic_celery.errors import InvalidField
from tests.support.generated import patient

TEXTS = st.text(min_size=1, max_size=20)
TIMES = {"created_at": "2026-01-02T03:04:05+00:00", "updated_at": "2026-01-02T03:04:05+00:00"}


def test_ids_sort_by_age() -> None:
    """Also those of one millisecond, and they are valid UUIDs of version 7."""
    ids = [new_id() for _ in range(5_000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(one).version for one in ids} == {7}
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_do_not_repeat_random_bytes() -> None:
    """They are taken from the kernel in blocks, and a block is one process's own."""
    new_id()  # a block is there
    reader, writer = os.pipe()

    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os.write(writer, f"{new_token()} {new_id()[-12:]} ".encode())
            os._exit(0)
        os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        made = [*pipe.read().split(), new_token(), new_id()[-12:]]

    assert len(made) == 6
    assert len({text[:12] for text in made}) == 6


@patient
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "first_name": st.none() | st.text(max_size=20),
            "email": st.none() | TEXTS,
            "tags": st.frozensets(TEXTS, max_size=5),
            "attributes": st.dictionaries(
                TEXTS, st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())
            ),
        },
    )
)
def test_contact_survives_its_hash(given_fields: dict[str, Any]) -> None:
    """Whatever names and values it has, a colon or a leading underscore in them included."""
    kept = contact_fields(given_fields) | {"id": "1", **TIMES}

    contact = parse_contact(flatten(kept))

    assert contact.first_name == given_fields.get("first_name")
    assert contact.email == given_fields.get("email")
    assert contact.tags == given_fields.get("tags", frozenset())
    assert contact.attributes == given_fields.get("attributes", {})


@pytest.mark.parametrize("kind", [list, tuple, set, collections.deque, dict.fromkeys, iter])
def test_tags_are_any_sequence_or_set(kind: Callable[[list[str]], Any]) -> None:
    """Whatever is typed as one, as a dictionary's keys are; of a generator each is taken once."""
    tags = kind(["a", "b"])
    if isinstance(tags, dict):
        tags = tags.keys()

    assert contact_fields({"tags": tags}) == {"tag:a": "", "tag:b": ""}


def test_changes_are_what_was_given() -> None:
    """None removes, absent stays, the address changes its index too."""
    kept, removed = contact_changes({"email": "A@B.example", "phone": None})

    assert kept == {"email": "A@B.example", "_email": "a@b.example"}
    assert removed == ["phone"]
    assert contact_changes({"email": None}) == ({}, ["email", "_email"])
    assert contact_changes({}) == ({}, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"external_id": ""},
        {"external_id": 5},
        {"first_name": "x" * 1_001},
        {"tags": "vip"},
        {"tags": [""]},
        {"attributes": {"a": object()}},
        {"id": "mine"},
    ],
)
def test_wrong_field_is_named_and_not_shown(fields: Mapping[str, Any]) -> None:
    """The error says which field and which rule."""
    with pytest.raises(InvalidField, match=f"contact field {next(iter(fields))}"):
        contact_fields(fields)


def test_message_content_has_one_spelling_for_all() -> None:
    """Keywords and mapping give the same; what is said twice is refused, as by publish."""
    by_mapping = message_content({"text": "Hello", "idempotencyKey": "k"}, None, None)

    assert by_mapping == message_content(None, "Hello", "k")
    with pytest.raises(InvalidField, match="text is given twice"):
        message_content({"text": "Hello"}, "Bye", None)
    with pytest.raises(InvalidField, match="a mapping"):
        message_content("Hello", None, None)  # type: ignore[arg-type]  # the point


def test_page_knows_whether_there_are_more() -> None:
    """One item more than asked for says so."""
    contacts = [parse_contact(flatten({"id": str(number), **TIMES})) for number in range(3)]

    full = Paging(2, None).page(contacts)
    cursor = new_id()
    last = Paging(3, cursor).page(contacts)

    assert ([one.id for one in full.items], full.next_cursor) == (["0", "1"], "1")
    assert last.next_cursor is None
    assert Paging(3, cursor).arguments("p")[0] == f"({cursor}"
