"""Topics, subscriptions and schemas from a YAML file: ``--resources pubsub.yaml``.

::

    project: shop                     # of names that are no full paths
    topics:
      - name: orders
        message_retention_duration: 1d
    subscriptions:
      - name: orders.billing
        topic: orders
        ack_deadline_seconds: 30
        dead_letter_policy: {dead_letter_topic: orders.dead, max_delivery_attempts: 5}

The fields are those of google.pubsub.v1, in either spelling. What is missing is created. What
exists gets the fields that the file gives and keeps the others, so that a file can be applied again
and again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from convotic_emulator.errors import PubsubError, ResourcesError
from convotic_emulator.services.publisher import PublisherService
from convotic_emulator.services.schemas import SchemaService
from convotic_emulator.services.subscriber import SubscriberService
from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.rules import Proto

__all__ = ["apply_resources"]

#: Fields that name another resource, and its collection; short names are completed.
_NAMING = {"topic": "topics", "dead_letter_topic": "topics", "schema": "schemas"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])\Z")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class _Entry:
    """One resource of the file, and the lines of the fields that it gives."""

    proto: Proto
    line: int
    lines: dict[str, int]


async def apply_resources(path: Path, engine: Engine) -> None:
    """Create or change what a file lists, and commit.

    Raises:
        ResourcesError: the file has a mistake, with file, line and field. What stands in sections
            and lines before it has been applied.
    """
    file = _File(path)
    publisher, subscriber = PublisherService(engine), SubscriberService(engine)
    for entry in file.entries("schemas", pubsub.Schema):
        await file.applied(entry, "", _put_schema(engine, entry.proto))
    for entry in file.entries("topics", pubsub.Topic):
        existing = engine.registry.topics.get(entry.proto.name)
        if existing is None:
            await file.applied(entry, "", publisher.create_topic(entry.proto))
        else:
            topic_update = pubsub.UpdateTopicRequest(topic=entry.proto)
            for field in _changed(entry, existing.proto, topic_update):
                await file.applied(entry, field, publisher.update_topic(topic_update))
    for entry in file.entries("subscriptions", pubsub.Subscription):
        subscription = engine.registry.subscriptions.get(entry.proto.name)
        if subscription is None:
            await file.applied(entry, "", subscriber.create_subscription(entry.proto))
        else:
            update = pubsub.UpdateSubscriptionRequest(subscription=entry.proto)
            for field in _changed(entry, subscription.proto, update):
                await file.applied(entry, field, subscriber.update_subscription(update))
    await engine.commits.committed()


def _changed(entry: _Entry, current: Proto, update: Proto) -> Iterator[str]:
    """Yield the fields that differ from what exists, each set in the update's mask."""
    for field in entry.lines:
        if getattr(current, field) != getattr(entry.proto, field):
            update.update_mask.paths[:] = [field]
            yield field


async def _put_schema(engine: Engine, wanted: Proto) -> None:
    """Create a schema, or commit a revision if its definition differs from the latest."""
    service, existing = SchemaService(engine), engine.registry.schemas.get(wanted.name)
    if existing is None:
        parent, _, schema_id = wanted.name.partition("/schemas/")
        request = pubsub.CreateSchemaRequest(schema_id=schema_id, parent=parent, schema=wanted)
        await service.create(request)
    elif existing.proto.schemas[0].definition != wanted.definition:
        await service.commit(pubsub.CommitSchemaRequest(name=wanted.name, schema=wanted))


class _File:
    """A parsed file: its nodes know their lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            import yaml  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra, without stubs
        except ImportError:
            raise ResourcesError(f"{path}: reading it needs PyYAML: pip install pyyaml.") from None
        self._yaml: Any = yaml
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            root = loader.get_single_node()
        except (OSError, UnicodeDecodeError) as error:
            raise ResourcesError(f"{path}: it can't be read: {error}.") from None
        except yaml.MarkedYAMLError as error:
            line = 1 if error.problem_mark is None else error.problem_mark.line + 1
            raise self._mistake(line, "", error.problem or "not YAML") from None
        self._loader: Any = loader
        self._sections = {} if root is None else self._mapping(root, "")
        known = ("project", "schemas", "topics", "subscriptions")
        for name, (line, _) in self._sections.items():
            if name not in known:
                raise self._mistake(line, name, f"unknown; known are {', '.join(known)}")
        self._project = self._value("project") or ""

    def entries(self, section: str, message: Any) -> Iterator[_Entry]:
        """Yield the resources of a section as messages of a type."""
        _, node = self._sections.get(section, (0, None))
        if node is None:
            return
        if not isinstance(node, self._yaml.SequenceNode):
            raise self._mistake(_line(node), section, "a list is expected, one entry a resource")
        for number, each in enumerate(node.value):
            where = f"{section}[{number}]"
            proto = message()
            lines = self._fill(proto, each, where)
            if not proto.name:
                raise self._mistake(_line(each), f"{where}.name", "it is missing")
            proto.name = self._full(proto.name, section, _line(each), f"{where}.name")
            lines.pop("name")
            yield _Entry(proto, _line(each), {**lines})

    async def applied(self, entry: _Entry, field: str, work: Awaitable[object]) -> None:
        """Wait for a change; name the place of one that is refused."""
        try:
            await work
        except PubsubError as error:
            where = f"{entry.proto.name} {field}".strip()
            raise self._mistake(entry.lines.get(field, entry.line), where, str(error)) from error

    def _fill(self, proto: Proto, node: Any, where: str) -> dict[str, int]:
        """Set the fields of a message; return the lines of those that are given."""
        fields = {
            name: field
            for field in proto.DESCRIPTOR.fields
            for name in (field.name, field.json_name)
        }
        lines: dict[str, int] = {}
        for name, (line, value) in self._mapping(node, where).items():
            place = f"{where}.{name}"
            field = fields.get(name)
            if field is None:
                raise self._mistake(line, place, "there is no such field")
            lines[field.name] = line
            self._set(proto, field, value, line, place)
        return lines

    def _set(self, proto: Proto, field: Any, node: Any, line: int, place: str) -> None:
        kind = field.message_type
        is_plain = kind is not None and not kind.full_name.startswith("google.protobuf.")
        if is_plain and not field.is_repeated:
            nested = getattr(proto, field.name)
            nested.SetInParent()
            self._fill(nested, node, place)
            return
        value = self._loader.construct_object(node, deep=True)
        if field.name in _NAMING and isinstance(value, str) and kind is None:
            value = self._full(value, _NAMING[field.name], line, place)
        if kind is not None and kind.full_name == "google.protobuf.Duration":
            value = _duration(value)
        try:
            json_format.ParseDict({field.name: value}, proto)
        except json_format.ParseError as error:
            raise self._mistake(line, place, str(error)) from None

    def _mapping(self, node: Any, where: str) -> dict[str, tuple[int, Any]]:
        """Return ``{key: (line, node)}`` of a mapping."""
        if not isinstance(node, self._yaml.MappingNode):
            raise self._mistake(_line(node), where or "file", "fields with values are expected")
        found: dict[str, tuple[int, Any]] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in found:
                raise self._mistake(_line(key), f"{where}.{name}".lstrip("."), "it is given twice")
            found[name] = (_line(key), value)
        return found

    def _value(self, name: str) -> Any:
        _, node = self._sections.get(name, (0, None))
        return None if node is None else self._loader.construct_object(node, deep=True)

    def _full(self, name: str, collection: str, line: int, place: str) -> str:
        if "/" in name:
            return name
        if not self._project:
            raise self._mistake(line, place, f"{name!r} is no full path, and project is not given")
        return f"projects/{self._project}/{collection}/{name}"

    def _mistake(self, line: int, place: str, text: str) -> ResourcesError:
        return ResourcesError(f"{self._path}:{line}: {place}: {text.rstrip('.')}.")


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _duration(value: Any) -> Any:
    """Return a duration as JSON has it: ``90``, ``10m`` and ``7d`` are taken too."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value}s"
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        return value
    seconds = f"{float(match[1]) * _UNIT_SECONDS[match[2]]:.9f}"
    return seconds.rstrip("0").rstrip(".") + "s"
