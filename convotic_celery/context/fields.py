"""Validates what services are given, and puts it into the form that is stored. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from convotic_celery.context.keys import normalize_email
from convotic_celery.context.models import ContactChanges, ContactFields
from convotic_celery.errors import InvalidField

__all__ = [
    "MessageContent",
    "channel_field",
    "contact_changes",
    "contact_fields",
    "email_field",
    "external_id_field",
    "idempotency_field",
    "message_content",
    "tag_field",
]

_MAX_KEY_CHARACTERS = 500
_MAX_TEXT_CHARACTERS = 100_000

#: As TypeAdapter.validate_python, which adds a third to the time.
_FIELDS: Any = TypeAdapter(ContactFields).validator
_CHANGES: Any = TypeAdapter(ContactChanges).validator
#: Fields that are several of the hash.
_NESTED = frozenset({"attributes", "tags"})


def contact_fields(given: Mapping[str, Any]) -> dict[str, str]:
    """Return what a new contact's hash holds of the given fields; raises InvalidField."""
    fields = _validate(_FIELDS, given)
    kept, _ = _encode_changes(fields)
    for tag in fields.get("tags", ()):
        kept[f"tag:{tag}"] = ""
    return kept


def contact_changes(given: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the hash fields to set and those to remove; raises InvalidField."""
    return _encode_changes(_validate(_CHANGES, given))


def _validate(validator: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = validator.validate_python(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # pydantic's own words for how it looks at a sequence are no part of the field's name.
        name = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))
        text = (
            f"there is no such field; the fields are {', '.join(ContactFields.__annotations__)}"
            if problem["type"] == "extra_forbidden"
            else problem["msg"]
        )
        raise InvalidField(f"contact field {name}: {text}") from None
    return fields


def _encode_changes(fields: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    kept: dict[str, str] = {n: v for n, v in fields.items() if v is not None and n not in _NESTED}
    removed = [name for name, value in fields.items() if value is None]
    if "email" in kept:
        kept["_email"] = normalize_email(kept["email"])
    elif "email" in fields:
        removed.append("_email")
    for name, value in fields.get("attributes", {}).items():
        kept[f"attribute:{name}"] = to_json(value).decode()
    return kept, removed


def tag_field(tag: str) -> str:
    """Return the hash field of a tag; raises InvalidField unless it has 1 to 500 characters."""
    return f"tag:{_check_key('tag', tag)}"


def idempotency_field(key: str | None) -> str:
    """Return the key as scripts take it, "" for none; raises InvalidField beyond 500 characters."""
    return "" if key is None else _check_key("idempotency_key", key)


def external_id_field(external_id: str | None) -> str:
    """Return the id to look for; raises InvalidField unless it has 1 to 500 characters."""
    return _check_key("external_id", external_id)


def email_field(email: str) -> str:
    """Return the address to look for; raises InvalidField unless it has 1 to 500 characters."""
    return _check_key("email", email)


def channel_field(channel: str) -> str:
    """Return a conversation's channel; raises InvalidField unless it has 1 to 500 characters."""
    return _check_key("channel", channel)


def _check_key(name: str, value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_KEY_CHARACTERS:
        given = f"{len(value)}" if isinstance(value, str) else type(value).__name__
        raise InvalidField(
            f"{name} must be a string of 1 to {_MAX_KEY_CHARACTERS} characters, not {given}"
        )
    return value


@dataclass(frozen=True, slots=True)
class MessageContent:
    """What is to be sent."""

    text: str
    idempotency_key: str | None


def message_content(
    content: Mapping[str, object] | None, text: str | None, idempotency_key: str | None
) -> MessageContent:
    """Return what is to be sent, from a mapping or from keywords; raises InvalidField."""
    if content is not None and not isinstance(content, Mapping):
        raise InvalidField('give a message as text="..." or as a mapping, {"text": "..."}')
    given: dict[str, Any] = dict(content or {})
    keywords = {"text": text, "idempotency_key": idempotency_key}
    for name, value in keywords.items():
        if value is not None and name in given:
            raise InvalidField(f"a message's {name} is given twice: in the mapping and as {name}=")
        if value is not None:
            given[name] = value
    camel = given.pop("idempotencyKey", None)
    key = given.pop("idempotency_key", camel)
    words = given.pop("text", None)
    if given:
        raise InvalidField(
            f"a message has only text and idempotency_key, not {', '.join(sorted(map(str, given)))}"
        )
    if not isinstance(words, str) or not 1 <= len(words) <= _MAX_TEXT_CHARACTERS:
        raise InvalidField(
            f"a message's text must be a string of 1 to {_MAX_TEXT_CHARACTERS} characters"
        )
    return MessageContent(words, key)
