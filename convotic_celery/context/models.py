"""What the context services return: frozen values, and the fields that can be written.

``records.py`` says how they are stored.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, with_config
from typing_extensions import TypedDict

__all__ = [
    "Contact",
    "ContactChanges",
    "ContactFields",
    "Conversation",
    "Direction",
    "Message",
    "Page",
]

#: From our side: sent to the contact, received from the contact.
Direction: TypeAlias = Literal["outbound", "inbound"]

ItemT = TypeVar("ItemT")


class Contact(BaseModel):
    """A person or organisation we talk to."""

    model_config = ConfigDict(frozen=True)

    id: str
    #: The id in the system the contact comes from; unique among contacts.
    external_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    phone: str | None = None
    tags: frozenset[str] = frozenset()
    #: Your own fields, any JSON.
    attributes: Mapping[str, JsonValue] = Field(default_factory=dict)
    #: Exact sums, added to by ``contacts.increment``.
    totals: Mapping[str, Decimal] = Field(default_factory=dict)
    #: Timezone-aware, UTC; so is ``updated_at``.
    created_at: datetime
    updated_at: datetime


class Conversation(BaseModel):
    """An exchange of messages with one contact over one channel."""

    model_config = ConfigDict(frozen=True)

    id: str
    contact_id: str
    #: Where it takes place, e.g. ``"chat"``, ``"email"``.
    channel: str
    status: Literal["open", "closed"]
    #: Timezone-aware, UTC.
    created_at: datetime


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True)

    id: str
    conversation_id: str
    text: str
    direction: Direction
    #: Timezone-aware, UTC.
    created_at: datetime


class Page(BaseModel, Generic[ItemT]):
    """A page of items; pass ``next_cursor`` to get the next one, None after the last."""

    model_config = ConfigDict(frozen=True)

    items: tuple[ItemT, ...]
    next_cursor: str | None = None


_REFUSE_UNKNOWN = ConfigDict(extra="forbid", hide_input_in_errors=True)

_Key = Annotated[str, Field(min_length=1, max_length=500)]
_Text = Annotated[str, Field(max_length=1_000)]
if TYPE_CHECKING:
    _Tags: TypeAlias = Sequence[str] | AbstractSet[str]
else:
    #: Takes any sequence and any set; a union of the two takes three times as long to validate.
    _Tags = list[_Key]
_Attributes = Annotated[dict[_Key, JsonValue], Field(max_length=500)]


@with_config(_REFUSE_UNKNOWN)
class ContactChanges(TypedDict, total=False):
    """Fields of ``contacts.update``: only the given ones are changed; None removes a value.

    ``attributes`` are merged by name.
    """

    external_id: _Key | None
    first_name: _Text | None
    last_name: _Text | None
    email: _Key | None
    phone: _Text | None
    attributes: _Attributes


@with_config(_REFUSE_UNKNOWN)
class ContactFields(ContactChanges, total=False):
    """Fields of ``contacts.create``, all optional; each may be None."""

    tags: Annotated[_Tags, Field(max_length=500)]
