"""The service google.pubsub.v1.SchemaService, and the check of what is published.

Sources: the API reference and https://cloud.google.com/pubsub/docs/schemas. Avro only.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.engine.names import check_name, check_project, short_name
from convotic_emulator.engine.registry import in_project
from convotic_emulator.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from convotic_emulator.services.avro import is_valid_message, parse_definition
from convotic_emulator.services.avro_compatibility import can_read
from convotic_emulator.services.paging import page_of
from convotic_emulator.services.rpc import unary_methods
from convotic_protos import pubsub as t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.registry import Schema, Topic
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Method

__all__ = ["SchemaService", "apply_schema", "check_schema_settings"]

#: https://cloud.google.com/pubsub/quotas
MAX_REVISIONS = 20
MAX_DEFINITION_BYTES = 300_000

_PROTOCOL_BUFFER, _AVRO = 1, 2
_BASIC = 1
_JSON, _BINARY = 1, 2

_SCHEMA = t.Schema
_SCHEMAS = t.ListSchemasResponse
_REVISIONS = t.ListSchemaRevisionsResponse
_VALIDATED = t.ValidateSchemaResponse
_MESSAGE_VALIDATED = t.ValidateMessageResponse


class SchemaService:
    """Methods of google.pubsub.v1.SchemaService."""

    NAME = "google.pubsub.v1.SchemaService"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def methods(self) -> dict[str, Method]:
        """Return methods by name."""
        table: dict[str, tuple[Any, Any]] = {
            "CreateSchema": (self.create, t.CreateSchemaRequest),
            "GetSchema": (self.get, t.GetSchemaRequest),
            "ListSchemas": (self.list, t.ListSchemasRequest),
            "ListSchemaRevisions": (self.list_revisions, t.ListSchemaRevisionsRequest),
            "CommitSchema": (self.commit, t.CommitSchemaRequest),
            "RollbackSchema": (self.rollback, t.RollbackSchemaRequest),
            "DeleteSchemaRevision": (self.delete_revision, t.DeleteSchemaRevisionRequest),
            "DeleteSchema": (self.delete, t.DeleteSchemaRequest),
            "ValidateSchema": (self.validate, t.ValidateSchemaRequest),
            "ValidateMessage": (self.validate_message, t.ValidateMessageRequest),
        }
        return unary_methods(self._engine, table)

    async def create(self, request: Proto) -> Proto:
        """Create a schema with its first revision."""
        parent = check_project(request.parent)
        name = check_name(f"{parent}/schemas/{request.schema_id}", "schemas")
        revision = self._new_revision(name, request.schema)
        self._engine.registry.create_schema(name, _REVISIONS(schemas=[revision]))
        return revision

    async def get(self, request: Proto) -> Proto:
        """Return the latest revision, or that of ``NAME@REVISION``."""
        name, _, revision_id = request.name.partition("@")
        schema = self._schema(name)
        return _viewed(_revision(schema, revision_id), request.view)

    async def list(self, request: Proto) -> Proto:
        """Return a page of a project's schemas."""
        found = in_project(self._engine.registry.schemas.values(), check_project(request.parent))
        page, token = page_of(found, lambda schema: schema.row.name, request)
        shown = [_viewed(_revision(schema), request.view or _BASIC) for schema in page]
        return _SCHEMAS(schemas=shown, next_page_token=token)

    async def list_revisions(self, request: Proto) -> Proto:
        """Return a page of a schema's revisions, newest first."""
        revisions = list(self._schema(request.name).proto.schemas)
        order = {r.revision_id: f"{n:04}" for n, r in enumerate(revisions)}
        page, token = page_of(revisions, lambda r: order[r.revision_id], request)
        shown = [_viewed(revision, request.view or _BASIC) for revision in page]
        return _REVISIONS(schemas=shown, next_page_token=token)

    async def commit(self, request: Proto) -> Proto:
        """Add a revision."""
        schema = self._schema(request.name)
        if request.schema.type != _revision(schema).type:
            raise InvalidArgument("A revision must have the type of the schema.")
        _check_definition(request.schema)
        _check_compatible(_revision(schema), request.schema)
        return self._add_revision(schema, self._new_revision(request.name, request.schema))

    async def rollback(self, request: Proto) -> Proto:
        """Add a revision that is a copy of an older one."""
        schema = self._schema(request.name)
        old = _revision(schema, request.revision_id)
        return self._add_revision(schema, self._new_revision(request.name, old))

    async def delete_revision(self, request: Proto) -> Proto:
        """Delete one revision, but not the only one."""
        name, _, revision_id = request.name.partition("@")
        schema = self._schema(name)
        gone = _revision(schema, revision_id or request.revision_id)
        if len(schema.proto.schemas) == 1:
            raise InvalidArgument("The only revision of a schema can't be deleted.")
        schema.proto.schemas.remove(gone)
        self._engine.registry.save(schema)
        return _revision(schema)

    async def delete(self, request: Proto) -> Proto:
        """Delete a schema; its topics show ``_deleted-schema_`` and refuse what is published."""
        self._schema(request.name)
        self._engine.registry.delete_schema(request.name)
        return empty_pb2.Empty()

    async def validate(self, request: Proto) -> Proto:
        """Return whether a definition is valid, by an error if it is not."""
        check_project(request.parent)
        _check_definition(request.schema)
        return _VALIDATED()

    async def validate_message(self, request: Proto) -> Proto:
        """Return whether a message fits a schema, by an error if it does not."""
        check_project(request.parent)
        if request.name:
            definition = _revision(self._schema(request.name)).definition
        else:
            _check_definition(request.schema)
            definition = request.schema.definition
        _check_encoding(request.encoding)
        binary = request.encoding == _BINARY
        if not is_valid_message(parse_definition(definition), request.message, binary=binary):
            raise InvalidArgument("Invalid message: it does not fit the schema.")
        return _MESSAGE_VALIDATED()

    def _schema(self, name: str) -> Schema:
        return self._engine.registry.schema(check_name(name, "schemas"))

    def _new_revision(self, name: str, wanted: Proto) -> Proto:
        _check_definition(wanted)
        revision = _SCHEMA(name=name, type=wanted.type, definition=wanted.definition)
        revision.revision_id = secrets.token_hex(4)
        revision.revision_create_time.FromMicroseconds(self._engine.clock.now_us())
        return revision

    def _add_revision(self, schema: Schema, revision: Proto) -> Proto:
        if len(schema.proto.schemas) >= MAX_REVISIONS:
            raise FailedPrecondition(f"A schema has at most {MAX_REVISIONS} revisions.")
        revisions = [revision, *schema.proto.schemas]
        schema.proto = _REVISIONS(schemas=revisions)
        self._engine.registry.save(schema)
        return revision


def apply_schema(engine: Engine, topic: Topic, messages: Sequence[Proto]) -> None:
    """Refuse a publish that does not fit the topic's schema; add the service's attributes."""
    settings = topic.proto.schema_settings
    schema = engine.registry.schemas.get(settings.schema)
    if schema is None:
        raise InvalidArgument("The schema of the topic was deleted.")
    revisions = _allowed(schema, settings)
    encoding = "BINARY" if settings.encoding == _BINARY else "JSON"
    for message in messages:
        for revision in revisions:
            parsed = schema.parsed(revision.revision_id, revision.definition, parse_definition)
            if is_valid_message(parsed, message.data, binary=settings.encoding == _BINARY):
                message.attributes["googclient_schemaencoding"] = encoding
                message.attributes["googclient_schemaname"] = settings.schema
                message.attributes["googclient_schemarevisionid"] = revision.revision_id
                break
        else:
            raise InvalidArgument(
                "Invalid data in message: it does not fit the schema"
                f" {short_name(settings.schema)} of the topic."
            )


def check_schema_settings(engine: Engine, topic: Proto) -> None:
    """Refuse a topic whose schema can't be used."""
    if topic.HasField("schema_settings"):
        settings = topic.schema_settings
        schema = engine.registry.schema(check_name(settings.schema, "schemas"))
        _check_encoding(settings.encoding)
        for revision_id in (settings.first_revision_id, settings.last_revision_id):
            _revision(schema, revision_id)


def _allowed(schema: Schema, settings: Proto) -> list[Proto]:
    """Return the revisions a message may fit, newest first (also if bounds were deleted)."""
    times = {r.revision_id: r.revision_create_time.ToMicroseconds() for r in schema.proto.schemas}
    first = times.get(settings.first_revision_id, 0)
    last = times.get(settings.last_revision_id, SECOND_US**3)
    return [r for r in schema.proto.schemas if first <= times[r.revision_id] <= last]


def _revision(schema: Schema, revision_id: str = "") -> Proto:
    for revision in schema.proto.schemas:
        if revision_id in ("", revision.revision_id):
            return revision
    raise NotFound.of(f"{schema.row.name}@{revision_id}")


def _viewed(revision: Proto, view: int) -> Proto:
    if view != _BASIC:
        return revision
    shown = _SCHEMA()
    shown.CopyFrom(revision)
    shown.definition = ""
    return shown


def _check_definition(schema: Proto) -> None:
    if schema.type == _PROTOCOL_BUFFER:
        raise Unimplemented(
            "Schemas of protocol buffers are not supported by convotic_emulator; use Avro."
        )
    if schema.type != _AVRO:
        raise InvalidArgument("The type of a schema must be AVRO or PROTOCOL_BUFFER.")
    if len(schema.definition.encode()) > MAX_DEFINITION_BYTES:
        raise InvalidArgument(f"A definition has at most {MAX_DEFINITION_BYTES} bytes.")
    parse_definition(schema.definition)


def _check_compatible(old: Proto, new: Proto) -> None:
    """Refuse a revision that can't be read as the one before, or the other way round.

    https://cloud.google.com/pubsub/docs/commit-schema-revision
    """
    before, after = parse_definition(old.definition), parse_definition(new.definition)
    if not (can_read(after, before) and can_read(before, after)):
        raise InvalidArgument(
            "Incompatible schema: by Avro's rules of schema resolution it must be able to read what"
            f" revision {old.revision_id} has written, and the other way round."
        )


def _check_encoding(encoding: int) -> None:
    if encoding not in (_JSON, _BINARY):
        raise InvalidArgument("The encoding must be JSON or BINARY.")
