"""Avro schemas: revisions, and what a topic with one accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import pubsub as t
from google.pubsub_v1.types import schema as s

from tests.conformance.broker import Broker, unique

JSON, BINARY = 1, 2
AVRO, PROTOCOL_BUFFER = 2, 1
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def definition(*names: str) -> str:
    fields = [{"name": name, "type": "int", "default": 0} for name in names]
    return json.dumps({"type": "record", "name": "Order", "fields": fields})


def make(broker: Broker, text: str = definition("number")) -> Any:
    return broker.call(
        "CreateSchema",
        parent=f"projects/{broker.project}",
        schema_id=unique("schema"),
        schema=s.Schema.pb()(type_=AVRO, definition=text),
    )


def topic_with(broker: Broker, schema: Any, encoding: int) -> str:
    settings = t.SchemaSettings.pb()(schema=schema.name, encoding=encoding)
    return broker.topic(schema_settings=settings)


def commit(broker: Broker, schema: Any, text: str) -> Any:
    wanted = s.Schema.pb()(name=schema.name, type_=AVRO, definition=text)
    return broker.call("CommitSchema", name=schema.name, schema=wanted)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    code: grpc.StatusCode = refused.value.code()
    return code


@pytest.mark.parametrize(
    ("encoding", "good", "bad"),
    [
        (JSON, b'{"number": 7}', b'{"number": "seven"}'),
        (JSON, b'{"number": 7}', b"no json"),
        (BINARY, b"\x0e", b"\x0e\x0e"),
        (BINARY, b"\x0e", b"\xff"),
    ],
)
def test_a_topic_takes_only_what_fits(
    broker: Broker, encoding: int, good: bytes, bad: bytes
) -> None:
    """The whole request is refused; what fits gets attributes that name schema and revision."""
    if bad == good * 2:
        broker.needs("limits", "ignores what follows the datum")
    schema = make(broker)
    topic = topic_with(broker, schema, encoding)
    subscription = broker.subscription(topic)

    assert code_of(lambda: broker.publish(topic, good, bad)) is INVALID
    broker.publish(topic, good)

    [received] = broker.pull_all(subscription, 1)
    assert received.message.data == good
    attributes = received.message.attributes
    assert attributes["googclient_schemaname"] == schema.name
    assert attributes["googclient_schemarevisionid"] == schema.revision_id
    assert attributes["googclient_schemaencoding"] == ("JSON" if encoding == JSON else "BINARY")


def test_revisions(broker: Broker) -> None:
    """Committed, listed (in no documented order), rolled back, deleted."""
    first = make(broker)
    second = commit(broker, first, definition("number", "more"))
    assert second.revision_id != first.revision_id
    assert broker.call("GetSchema", name=first.name, view=2).definition == second.definition
    old = broker.call("GetSchema", name=f"{first.name}@{first.revision_id}", view=2)
    assert old.definition == first.definition

    third = broker.call("RollbackSchema", name=first.name, revision_id=first.revision_id)
    listed = broker.call("ListSchemaRevisions", name=first.name, view=2).schemas
    made = {first.revision_id, second.revision_id, third.revision_id}
    assert {r.revision_id for r in listed} == made

    broker.call("DeleteSchemaRevision", name=f"{first.name}@{third.revision_id}")
    assert broker.call("GetSchema", name=first.name).revision_id == second.revision_id
    names = [each.name for each in broker.call("ListSchemas", parent=_parent(broker)).schemas]
    assert names == [first.name]
    broker.call("DeleteSchema", name=first.name)
    missing = code_of(lambda: broker.call("GetSchema", name=first.name))
    assert missing is grpc.StatusCode.NOT_FOUND


def test_a_message_may_fit_any_revision(broker: Broker) -> None:
    """The newest that it fits is named."""
    schema = make(broker)
    topic = topic_with(broker, schema, BINARY)
    subscription = broker.subscription(topic)
    newer = commit(broker, schema, definition("number", "more"))

    broker.publish(topic, b"\x02", b"\x02\x04")

    received = broker.pull_all(subscription, 2)
    revisions = [m.message.attributes["googclient_schemarevisionid"] for m in received]
    assert revisions == [schema.revision_id, newer.revision_id]


def test_a_revision_must_be_compatible(broker: Broker) -> None:
    """As reader and as writer of what was before: new and dropped fields need a default."""
    broker.needs("schema_compatibility", "accepts any revision")
    schema = make(broker)
    required = {"name": "more", "type": "int"}
    record = {"type": "record", "name": "Order", "fields": [required]}

    for text in (json.dumps(record), json.dumps("int")):
        assert code_of(lambda: commit(broker, schema, text)) is INVALID  # noqa: B023  # called now

    commit(broker, schema, definition("number", "more"))


def test_validation_without_a_topic(broker: Broker) -> None:
    """Of a definition, and of a message against one."""
    good = s.Schema.pb()(type_=AVRO, definition=definition("number"))
    bad = s.Schema.pb()(type_=AVRO, definition='{"type": "nothing"}')
    broker.call("ValidateSchema", parent=_parent(broker), schema=good)
    assert code_of(lambda: broker.call("ValidateSchema", parent=_parent(broker), schema=bad)) is (
        INVALID
    )
    fields = {"parent": _parent(broker), "schema": good, "encoding": JSON}
    broker.call("ValidateMessage", message=b'{"number": 1}', **fields)
    assert code_of(lambda: broker.call("ValidateMessage", message=b"{", **fields)) is INVALID


def test_protocol_buffers_are_not_supported(broker: Broker) -> None:
    """UNIMPLEMENTED, by Google's emulator too; the service can."""
    if broker.features.name == "cloud":
        pytest.xfail("the service supports them")
    schema = s.Schema.pb()(type_=PROTOCOL_BUFFER, definition='syntax = "proto3"; message M {}')

    code = code_of(lambda: broker.call("ValidateSchema", parent=_parent(broker), schema=schema))

    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_a_topic_of_a_deleted_schema_takes_nothing(broker: Broker) -> None:
    """It shows ``_deleted-schema_``."""
    schema = make(broker)
    topic = topic_with(broker, schema, JSON)

    broker.call("DeleteSchema", name=schema.name)

    shown = broker.call("GetTopic", topic=topic).schema_settings.schema
    assert shown == "_deleted-schema_"
    code_of(lambda: broker.publish(topic, b'{"number": 1}'))


def _parent(broker: Broker) -> str:
    return f"projects/{broker.project}"
