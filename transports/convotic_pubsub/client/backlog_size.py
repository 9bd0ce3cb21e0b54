"""How many messages a subscription has: what is known, how old that is, and never a guess.

Our emulator counts exactly. The service tells through Cloud Monitoring, minutes late, to whoever
has ``roles/monitoring.viewer``. Google's emulator does not tell.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from convotic_pubsub.names import subscription_path
from convotic_pubsub.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from convotic_pubsub.client.broker import Broker
    from convotic_pubsub.options import TransportOptions

__all__ = ["BacklogSize", "BacklogSizes", "read_from_monitoring"]

logger = logging.getLogger(__name__)

_MONITORING = "https://monitoring.googleapis.com"
_UNDELIVERED = "pubsub.googleapis.com/subscription/num_undelivered_messages"
#: Points come once a minute and up to four minutes late.
_LOOK_BACK = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class BacklogSize:
    """The messages of one subscription."""

    #: All that are not acknowledged.
    messages: int
    #: Of these, held by consumers now; None: not known.
    leased: int | None = None
    #: Since the oldest was published; None: not known, or there is none.
    oldest_age_seconds: float | None = None
    #: Since the figures were right; 0: they are exact.
    figures_age_seconds: float = 0.0


class BacklogSizes:
    """Asks for the sizes. That they can't be known is logged once, until they are again.

    Metrics and dashboards ask every few seconds, in an outage of hours too.
    """

    def __init__(self, broker: Broker, options: TransportOptions) -> None:
        self._broker = broker
        self._options = options
        self._outage = Outage()

    async def read(self, subscriptions: Iterable[str]) -> dict[str, BacklogSize]:
        """Return what is known of subscriptions, by their names as given (I/O thread).

        Unknown ones are left out, and the cause is logged. Raises nothing.
        """
        paths = {subscription_path(self._options.project, name): name for name in subscriptions}
        try:
            found = await self._ask(list(paths))
        except Exception as error:  # noqa: BLE001  figures for people: whatever it is, they are unknown
            if not _is_unimplemented(error) and self._outage.miss():
                logger.warning(
                    "Queue lengths are not known: %s",
                    error.details() if isinstance(error, grpc.aio.AioRpcError) else error,
                    extra={"action": "backlog_unknown"},
                )
            return {}
        if self._outage.end():
            logger.info("Queue lengths are known again", extra={"action": "backlog_known"})
        return {paths[path]: size for path, size in found.items() if path in paths}

    async def _ask(self, paths: Sequence[str]) -> dict[str, BacklogSize]:
        if self._broker.is_emulated:
            return await _count_on_emulator(self._broker, paths)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, _ask_monitoring, self._options, paths)


def _is_unimplemented(error: Exception) -> bool:
    """Say whether it is Google's emulator: nothing can be done about that."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED


async def _count_on_emulator(broker: Broker, paths: Sequence[str]) -> dict[str, BacklogSize]:
    answer = await broker.rpc.count_messages(paths)
    now = datetime.now(UTC).timestamp()
    sizes: dict[str, BacklogSize] = {}
    for path, value in answer.fields.items():
        figures = value.struct_value.fields
        oldest = figures["oldest_published_at"]
        has_oldest = oldest.WhichOneof("kind") == "number_value"
        sizes[path] = BacklogSize(
            messages=int(figures["messages"].number_value),
            leased=int(figures["leased"].number_value),
            oldest_age_seconds=max(0.0, now - oldest.number_value) if has_oldest else None,
        )
    return sizes


def _ask_monitoring(options: TransportOptions, paths: Sequence[str]) -> dict[str, BacklogSize]:
    """Ask with the credentials that the options name. Blocks."""
    import google.auth  # noqa: PLC0415  most processes never ask
    from google.auth.transport.requests import AuthorizedSession  # noqa: PLC0415

    from convotic_pubsub.client.channels import make_credentials  # noqa: PLC0415

    scope = "https://www.googleapis.com/auth/monitoring.read"
    credentials = make_credentials(options, scope) or google.auth.default([scope])[0]
    http: Any = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]  # Google's
    with http:
        found: dict[str, BacklogSize] = {}
        for project in {path.split("/")[1] for path in paths}:
            found |= read_from_monitoring(http.get, project, datetime.now(UTC))
        return found


def read_from_monitoring(
    get: Callable[..., Any], project: str, now: datetime, url: str = _MONITORING
) -> dict[str, BacklogSize]:
    """Return the backlog sizes of all subscriptions of a project, by full name.

    Args:
        get: as ``requests.Session.get``, with credentials.
        project: its id.
        now: the time.
        url: where Monitoring is.

    Raises:
        requests.HTTPError: refused, for instance for want of ``roles/monitoring.viewer``.
    """
    parameters = {
        "filter": f'metric.type = "{_UNDELIVERED}"',
        "interval.startTime": (now - _LOOK_BACK).isoformat(),
        "interval.endTime": now.isoformat(),
    }
    found: dict[str, BacklogSize] = {}
    while True:
        response = get(f"{url}/v3/projects/{project}/timeSeries", params=parameters, timeout=20)
        response.raise_for_status()
        page: Mapping[str, Any] = response.json()
        for series in page.get("timeSeries", ()):
            name = series["resource"]["labels"]["subscription_id"]
            found[subscription_path(project, name)] = _newest(series["points"][0], now)
        if not page.get("nextPageToken"):
            return found
        parameters["pageToken"] = page["nextPageToken"]


def _newest(point: Mapping[str, Any], now: datetime) -> BacklogSize:
    measured = datetime.fromisoformat(point["interval"]["endTime"])
    return BacklogSize(
        messages=int(point["value"]["int64Value"]),
        figures_age_seconds=max(0.0, (now - measured).total_seconds()),
    )
