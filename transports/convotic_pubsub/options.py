"""The transport's options: one frozen object, parsed and validated from a URL and kombu's dict.

Pure but for :func:`parse_options`' default environment, which callers can pass in.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from convotic_pubsub.errors import OptionError
from convotic_pubsub.queue import QueueSpec, Received

__all__ = ["EmulatorHost", "Provision", "PullMode", "TransportOptions", "parse_options"]

EmulatorHost: TypeAlias = str | Callable[[], str]
Provision: TypeAlias = Literal["create", "verify", "off"]
PullMode: TypeAlias = Literal["auto", "stream", "unary"]

#: kombu writes its own retry settings into the same dict (kombu/messaging.py, kombu/connection.py).
_KOMBU_OPTIONS = frozenset(
    {
        "max_retries",
        "interval_start",
        "interval_step",
        "interval_max",
        "errback",
        "callback",
        "connect_retries_timeout",
        "polling_interval",
        "client_properties",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """What ``broker_transport_options`` may hold, and the project of the URL.

    Instances are immutable and may be shared between threads.
    """

    #: Google Cloud project id, from ``pubsub://PROJECT``.
    project: str
    #: ``host:port`` of an emulator, or a callable that returns it (asked again after a lost
    #: connection; it may block for seconds). None: the service. Default: ``PUBSUB_EMULATOR_HOST``.
    emulator_host: EmulatorHost | None = None
    #: ``host:port`` of the service; a regional one keeps ordering keys in their region.
    endpoint: str = "pubsub.googleapis.com:443"
    #: Path of a service account's key file; None: application default credentials.
    credentials_file: str | None = None
    #: Act as this service account (needs ``roles/iam.serviceAccountTokenCreator`` on it).
    impersonate_service_account: str | None = None
    #: A ``google.auth.credentials.Credentials`` to use instead.
    credentials: Any = field(default=None, repr=False)
    #: ``create`` makes what is missing, ``verify`` reports what differs, ``off`` asks nothing.
    provision: Provision = "create"
    #: ``auto`` streams, except on an emulator that ignores flow control (Google's): unary Pull.
    pull_mode: PullMode = "auto"
    #: Queues with a topic and a policy of their own; any other name is a queue of kombu messages.
    queues: Mapping[str, QueueSpec] = field(default_factory=dict)
    #: Told of the dead letters of all other queues, with the queue's name first; otherwise as
    #: ``QueueSpec.on_dead_letter``.
    on_dead_letter: Callable[[str, Received, Mapping[str, str], str], object] | None = None
    #: Put before the names of Celery's own topics and subscriptions, to keep apps apart.
    prefix: str = ""
    #: Put on all topics and subscriptions that are created.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Where Pub/Sub may store messages of topics that are created, e.g. ``["europe-west1"]``.
    message_storage_regions: Sequence[str] = ()
    #: How long a publish is retried on transient errors before it raises.
    publish_timeout_seconds: float = 60.0
    #: Lease of an ordinary Celery message while it is held; 10..600.
    visibility_timeout_seconds: float = 60.0
    #: An ordinary message is held (ETA, long task) at most this long.
    max_lease_seconds: float = 7 * 24 * 3600.0
    #: An ordinary message goes to the dead-letter topic after so many deliveries, however they
    #: ended; 5..100. 0: never; then redeliveries by other processes are not recognised.
    max_delivery_attempts: int = 100
    #: Messages of one ordinary queue held here when the prefetch count is 0 (no limit).
    default_max_outstanding: int = 200

    def __post_init__(self) -> None:
        for name, (is_valid, rule) in _RULES.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise OptionError(f"transport option {name}={value!r}: {rule}")
        # Lists would make the options unfit for a session's key, and could change later.
        object.__setattr__(self, "message_storage_regions", tuple(self.message_storage_regions))


def _is_number(value: object, least: float, most: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and least <= value <= most  # type: ignore[operator]  # a number, then


def _is_text(value: object) -> bool:
    return value is None or (isinstance(value, str) and bool(value))


def _is_address(value: object) -> bool:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def _are_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) and _LABEL.fullmatch(f"{k}={v}")
        for k, v in value.items()
    )


def _are_regions(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(isinstance(region, str) and _REGION.fullmatch(region) for region in value)
    )


def _are_queues(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(spec, QueueSpec) and spec.queue == name for name, spec in value.items()
    )


_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@]+):\d{1,5}")
#: https://cloud.google.com/pubsub/docs/labels
_LABEL = re.compile(r"[^\W\dA-Z][\w-]{0,62}=[\w-]{0,63}")
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_ONE_OF = "use one of {}"

#: What each option must be, and how that is said.
_RULES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "emulator_host": (
        lambda value: value is None or callable(value) or _is_address(value),
        "HOST:PORT, a callable that returns it, or None",
    ),
    "endpoint": (_is_address, "HOST:PORT, as europe-west1-pubsub.googleapis.com:443"),
    "credentials_file": (_is_text, "the path of a key file, or None"),
    "impersonate_service_account": (_is_text, "a service account's address, or None"),
    "provision": (
        lambda value: value in get_args(Provision),
        _ONE_OF.format(", ".join(get_args(Provision))),
    ),
    "pull_mode": (
        lambda value: value in get_args(PullMode),
        _ONE_OF.format(", ".join(get_args(PullMode))),
    ),
    "queues": (_are_queues, "a mapping of each QueueSpec's name to it"),
    "on_dead_letter": (lambda value: value is None or callable(value), "a callable, or None"),
    "prefix": (lambda value: isinstance(value, str), "a text"),
    "labels": (
        _are_labels,
        "a mapping of names to values: lower-case letters, digits, _ and -, 63 at most",
    ),
    "message_storage_regions": (_are_regions, 'a list of regions, as ["europe-west1"]'),
    "publish_timeout_seconds": (lambda value: _is_number(value, 0.1), "seconds, at least 0.1"),
    "visibility_timeout_seconds": (
        lambda value: _is_number(value, 10, 600),
        "Pub/Sub's ack deadline is 10..600 seconds",
    ),
    "max_delivery_attempts": (
        lambda value: isinstance(value, int) and (value == 0 or _is_number(value, 5, 100)),
        "Pub/Sub's limit of deliveries is 5..100; 0 is none",
    ),
    "max_lease_seconds": (lambda value: _is_number(value, 10), "seconds, at least 10"),
    "default_max_outstanding": (
        lambda value: isinstance(value, int) and _is_number(value, 1),
        "a whole number, at least 1",
    ),
}


def parse_options(
    url: str,
    transport_options: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
) -> TransportOptions:
    """Make options of ``pubsub://PROJECT`` and kombu's ``transport_options``.

    Without a project in the URL, ``GOOGLE_CLOUD_PROJECT`` names it. ``PUBSUB_EMULATOR_HOST`` is
    honoured as by Google's clients, unless the option ``emulator_host`` is given.

    Raises:
        OptionError: unknown option, wrong value, or no project.
    """
    known = {f.name for f in fields(TransportOptions)} - {"project"}
    given = {k: v for k, v in transport_options.items() if k not in _KOMBU_OPTIONS}
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {sorted(known)}"
            raise OptionError(f"unknown transport option {name!r}{hint}")
    project = _project(url) or environ.get("GOOGLE_CLOUD_PROJECT", "")
    if not project:
        raise OptionError(
            f"broker URL {_masked(url)!r} names no project: use pubsub://PROJECT or set "
            "GOOGLE_CLOUD_PROJECT"
        )
    if given.get("emulator_host") is None:
        given["emulator_host"] = environ.get("PUBSUB_EMULATOR_HOST") or None
    return TransportOptions(project=project, **given)


def _masked(url: str) -> str:
    """Return a URL without what may be a password."""
    return re.sub(r"//.*@", "//***@", url)


def _project(url: str) -> str:
    """Return the project of ``pubsub://PROJECT``, "" when there is none."""
    rest = url.split("://", 1)[-1]
    if "@" in rest or urlsplit(f"//{rest}").path.strip("/"):
        raise OptionError(
            f"broker URL {_masked(url)!r}: use pubsub://PROJECT, with nothing after the project"
        )
    return rest.strip("/")
