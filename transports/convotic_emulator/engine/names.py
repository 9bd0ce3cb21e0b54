"""Resource names of Pub/Sub: the service's rules, and nothing else.

Source: the ``name`` fields in the API reference and
https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names.
"""

from __future__ import annotations

import re

from convotic_emulator.errors import InvalidArgument

__all__ = [
    "DELETED_SCHEMA",
    "DELETED_TOPIC",
    "check_name",
    "check_project",
    "project_of",
    "short_name",
]

#: What a subscription shows as its topic once the topic is gone.
DELETED_TOPIC = "_deleted-topic_"
#: What a topic shows as its schema once that is gone.
DELETED_SCHEMA = "_deleted-schema_"

_PROJECT = re.compile(r"projects/([^/\s]+)\Z")
_RESOURCE = re.compile(r"projects/([^/\s]+)/(topics|subscriptions|snapshots|schemas)/([^/]*)\Z")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}\Z")


def check_name(name: str, collection: str) -> str:
    """Return ``name`` if it is ``projects/P/<collection>/ID`` with a legal id.

    ``collection`` is ``topics``, ``subscriptions``, ``snapshots`` or ``schemas``. An id has 3 to
    255 characters, starts with a letter, has only letters, digits and ``-_.~+%``, and does not
    begin with ``goog``.
    """
    match = _RESOURCE.match(name)
    if match is None or match[2] != collection:
        raise InvalidArgument(
            f"Invalid resource name given (name={name}): expected projects/PROJECT/{collection}/ID."
        )
    if not _ID.match(match[3]) or match[3].startswith("goog"):
        raise InvalidArgument(
            f"Invalid [{collection}] name: (name={name}): an id has 3 to 255 characters, starts"
            " with a letter, has only letters, digits and -_.~+%, and does not begin with goog."
        )
    return name


def check_project(name: str) -> str:
    """Return ``name`` if it is ``projects/P``."""
    if not _PROJECT.match(name):
        raise InvalidArgument(f"Invalid resource name given (name={name}): expected projects/ID.")
    return name


def project_of(name: str) -> str:
    """Return ``P`` of ``projects/P/...``."""
    return name.split("/", 2)[1]


def short_name(name: str) -> str:
    """Return the id, the last part of a resource name."""
    return name.rsplit("/", 1)[-1]
