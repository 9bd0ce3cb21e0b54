"""Faults on demand, for tests: what goes wrong with Pub/Sub once a year goes wrong now.

A :class:`Faults` is given to a server when it is made. Its methods may be called from any thread
while the server runs; each takes effect for the calls and messages that come after it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from google.protobuf import empty_pb2

from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.errors import PermissionDenied, PubsubError, Unavailable
from convotic_emulator.services.permissions import (
    expand_roles,
    needed_permissions,
    project_of_resource,
)
from convotic_emulator.services.rpc import call_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.rpc import Call, Method

__all__ = ["Faults", "with_faults"]

#: What the service says.
_DENIED = "User not authorized to perform this action."


@dataclass(slots=True)
class _Outage:
    """The next ``calls`` calls fail; of one method, or of all."""

    calls: int
    method: str


class Faults:
    """Faults to inject; none until a method is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outages: list[_Outage] = []
        #: By resource; an empty set stands for all permissions.
        self._denied: dict[str, frozenset[str]] = {}
        #: None: everything is granted.
        self._granted: dict[str, frozenset[str]] | None = None
        #: How many requests' acknowledgements are to be lost, by subscription; "": of any.
        self._lost_acks: Counter[str] = Counter()
        self._duplicates = 0
        self._delays: list[float] = []
        self._streams: set[_OpenStream] = set()
        self._withholds_keepalive = False
        self._stream_seconds: float | None = None
        #: Sends GOAWAY to all clients; set by the server that has these faults.
        self.send_goaway: Callable[[], object] = lambda: None

    def unavailable(self, calls: int = 1, *, method: str = "") -> None:
        """Answer the next calls with UNAVAILABLE, before they have any effect.

        Args:
            calls: how many.
            method: only calls of this one (``"Publish"``, ``"StreamingPull"``); default: any.
        """
        with self._lock:
            self._outages.append(_Outage(calls, method))

    def deny(self, resource: str, *granted: str) -> None:
        """Take rights on a resource away, until :meth:`allow`: calls answer PERMISSION_DENIED.

        Args:
            resource: its full name, ``projects/P/subscriptions/S``; ``projects/P`` for what is
                created and listed in a project. Its open streams end, if they need what is taken.
            granted: only these roles or permissions (``roles/pubsub.publisher``,
                ``pubsub.topics.publish``); default: all, so that nothing about the resource works.
        """
        with self._lock:
            self._denied[resource] = expand_roles(granted)
        self._end_forbidden_streams()

    def allow(self, resource: str) -> None:
        """Undo :meth:`deny`."""
        with self._lock:
            self._denied.pop(resource, None)

    def grant_only(self, bindings: Mapping[str, Collection[str]] | None) -> None:
        """Grant nothing but this, as the service does it; until it is called with None.

        Args:
            bindings: roles and permissions by the full name of a resource. Those of ``projects/P``
                hold for everything in it.
        """
        with self._lock:
            self._granted = (
                None
                if bindings is None
                else {name: expand_roles(granted) for name, granted in bindings.items()}
            )
        self._end_forbidden_streams()

    def is_granted(self, permission: str, resource: str) -> bool:
        """Say whether the clients have a permission on a resource."""
        denied = self._denied.get(resource)
        if denied is not None and (not denied or permission in denied):
            return False
        if self._granted is None:
            return True
        holders = (resource, project_of_resource(resource))
        return any(permission in self._granted.get(name, ()) for name in holders)

    def drop_streams(self, subscription: str = "") -> int:
        """End open StreamingPulls with UNAVAILABLE; return how many. Leases stay as they are.

        Args:
            subscription: only those of this one, by its full name.
        """
        return self._end_streams(Unavailable("The connection was dropped."), subscription)

    def silence_streams(self, subscription: str = "") -> int:
        """Send nothing more on open StreamingPulls, not even keepalives; return how many.

        They stay open, and go on taking requests. What is leased to them lapses in time.

        Args:
            subscription: only those of this one, by its full name.
        """
        chosen = self._chosen(subscription)
        for stream in chosen:
            stream.is_silent = True
        return len(chosen)

    def withhold_keepalive(self) -> None:
        """Answer no keepalive of any stream, until :meth:`clear`; messages are delivered."""
        with self._lock:
            self._withholds_keepalive = True

    def limit_streams(self, seconds: float | None) -> None:
        """End StreamingPulls with UNAVAILABLE so long after they were opened, as the service does.

        Args:
            seconds: for streams that are opened from now on; None for no limit.
        """
        with self._lock:
            self._stream_seconds = seconds

    def goaway(self) -> None:
        """Have all clients connect again for new calls; those that run go on."""
        self.send_goaway()

    def lose_acks(self, requests: int = 1, subscription: str = "") -> None:
        """Confirm the next acknowledgements and ignore them: the messages are redelivered.

        Args:
            requests: how many requests with acknowledgements.
            subscription: only those of this one, by its full name; "": of any.

        An exactly-once subscription never confirms what it did not do: it answers UNAVAILABLE.
        """
        with self._lock:
            self._lost_acks[subscription] += requests

    def duplicate(self, messages: int = 1) -> None:
        """Deliver the next messages a second time, while the first delivery is still worked on.

        The second has an ack id of its own, and counts as another attempt; only its
        acknowledgement removes the message.
        """
        with self._lock:
            self._duplicates += messages

    def delay(self, seconds: float, messages: int = 1) -> None:
        """Deliver the next published messages late, by the server's clock. Others pass them."""
        with self._lock:
            self._delays += [seconds] * messages

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._outages.clear()
            self._denied.clear()
            self._granted = None
            self._delays.clear()
            self._lost_acks.clear()
            self._duplicates = 0
            self._withholds_keepalive = False
            self._stream_seconds = None

    # What the server asks

    def take_delay_us(self) -> int:
        """Return the delay of the next published message."""
        with self._lock:
            return round(self._delays.pop(0) * SECOND_US) if self._delays else 0

    def check(self, method: str, request: Proto) -> None:
        """Raise the fault of a call, if there is one."""
        with self._lock:
            for outage in self._outages:
                if outage.method not in ("", method):
                    continue
                outage.calls -= 1
                if not outage.calls:
                    self._outages.remove(outage)
                raise Unavailable("The service was unable to fulfill your request.")
            is_limited = bool(self._denied) or self._granted is not None
        if is_limited and not all(
            self.is_granted(permission, resource)
            for permission, resource in needed_permissions(method, request)
        ):
            raise PermissionDenied(_DENIED)

    def take_lost_ack(self, subscription: str) -> bool:
        """Return whether an acknowledgement is to be ignored."""
        with self._lock:
            for name in (subscription, ""):
                if self._lost_acks[name] > 0:
                    self._lost_acks -= Counter([name])  # which keeps no zeros
                    return True
            return False

    def take_duplicates(self, available: int) -> int:
        """Return how many of some messages are to be redelivered."""
        with self._lock:
            count = min(available, self._duplicates)
            self._duplicates -= count
            return count

    def add_stream(self, stream: _OpenStream) -> None:
        """Record a stream that may have to end."""
        with self._lock:
            self._streams.add(stream)

    def remove_stream(self, stream: _OpenStream) -> None:
        """Forget a stream that has ended."""
        with self._lock:
            self._streams.discard(stream)

    @property
    def withholds_keepalive(self) -> bool:
        """Whether keepalives are not answered."""
        return self._withholds_keepalive

    @property
    def stream_seconds(self) -> float | None:
        """How long a stream lives."""
        return self._stream_seconds

    def _end_forbidden_streams(self) -> None:
        with self._lock:
            streams = [s for s in self._streams if s.subscription]
        for stream in streams:
            if not self.is_granted("pubsub.subscriptions.consume", stream.subscription):
                stream.end(PermissionDenied(_DENIED))

    def _end_streams(self, error: PubsubError, subscription: str) -> int:
        chosen = self._chosen(subscription)
        for stream in chosen:
            stream.end(error)
        return len(chosen)

    def _chosen(self, subscription: str) -> list[_OpenStream]:
        with self._lock:
            return [s for s in self._streams if subscription in ("", s.subscription)]


def with_faults(path: str, method: Method, faults: Faults, engine: Engine) -> Method:
    """Return a method with its faults; only those of Pub/Sub have any."""
    if not path.startswith(("/google.pubsub.", "/google.iam.")):
        return method
    name = path.rpartition("/")[2]

    async def serve_stream(call: Call) -> None:
        await _OpenStream(faults, engine, call).run(method.serve)

    async def serve(request: Proto, call: Call) -> Any:
        try:
            faults.check(name, request)
            if name == "Acknowledge" and faults.take_lost_ack(request.subscription):
                _refuse_exactly_once(engine, request.subscription)
                engine.registry.subscription(request.subscription)
                return empty_pb2.Empty()
        except PubsubError as error:
            raise call_error(error, engine) from error
        answer = await method.serve(request, call)
        if name == "TestIamPermissions":
            granted = [p for p in answer.permissions if faults.is_granted(p, request.resource)]
            answer.permissions[:] = granted
        if name == "Pull":
            await _deliver_again(faults, engine, request.subscription, answer)
        return answer

    return replace(method, serve=serve_stream if method.is_stream else serve)


class _OpenStream:
    """One StreamingPull with faults: what the server's own method sees as its call."""

    def __init__(self, faults: Faults, engine: Engine, call: Call) -> None:
        self.subscription = ""
        self._faults = faults
        self._engine = engine
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Future[None] | None = None
        self._error: PubsubError | None = None
        #: Whether nothing is sent any more; set from any thread.
        self.is_silent = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def run(self, serve: Callable[[Any], Awaitable[None]]) -> None:
        """Serve until the stream ends, by itself or by a fault."""
        self._task = asyncio.ensure_future(serve(self))
        self._faults.add_stream(self)
        timer = None
        if (seconds := self._faults.stream_seconds) is not None:
            text = "The service was unable to fulfill your request."
            timer = self._loop.call_later(seconds, self._end, Unavailable(text))
        try:
            await self._task
        except asyncio.CancelledError:
            if self._error is None:
                raise  # the client has gone
            raise call_error(self._error, self._engine) from None
        finally:
            self._faults.remove_stream(self)
            if timer is not None:
                timer.cancel()

    def end(self, error: PubsubError) -> None:
        """End the stream with a status; from any thread."""
        self._loop.call_soon_threadsafe(self._end, error)

    async def read(self) -> Any:
        """Return the client's next request, without acknowledgements that are to be lost."""
        request = await self._call.read()
        if request is None:
            return None
        if not self.subscription:
            self.subscription = request.subscription
            self._faults.check("StreamingPull", request)
        if request.ack_ids and self._faults.take_lost_ack(self.subscription):
            _refuse_exactly_once(self._engine, self.subscription)
            del request.ack_ids[:]
        return request

    async def write(self, response: Proto) -> None:
        """Send a response; deliver some of its messages again if that is wanted."""
        if self.is_silent:
            await asyncio.Event().wait()  # until the stream ends
        if self._faults.withholds_keepalive and _is_keepalive(response):
            return
        await self._call.write(response)
        await _deliver_again(self._faults, self._engine, self.subscription, response)

    def _end(self, error: PubsubError) -> None:
        """End it now: what is published from here on must not be leased to it any more."""
        if self._error is None and self._task is not None and not self._task.done():
            self._error = error
            self._task.cancel()


def _is_keepalive(response: Proto) -> bool:
    """Return whether a response has properties of the subscription at most."""
    return {field.name for field, _ in response.ListFields()} <= {"subscription_properties"}


def _refuse_exactly_once(engine: Engine, name: str) -> None:
    subscription = engine.registry.subscriptions.get(name)
    if subscription is not None and subscription.state.rules.exactly_once:
        raise Unavailable("The acknowledgement was lost.")


async def _deliver_again(faults: Faults, engine: Engine, name: str, response: Proto) -> None:
    """Give up the leases of messages that were just sent, so that they are sent again."""
    count = faults.take_duplicates(len(response.received_messages))
    subscription = engine.registry.subscriptions.get(name)
    if count and subscription is not None:
        engine.commits.check_usable()
        changes = [(entry.ack_id, 0) for entry in response.received_messages[:count]]
        subscription.state.modify(changes, engine.clock.now_us())
        await engine.commits.committed()
