"""Push delivery: messages of a subscription as HTTP requests to an endpoint.

Sources: https://cloud.google.com/pubsub/docs/push and ``PushConfig`` in the API reference. What is
ours: at most ``MAX_REQUESTS`` at a time instead of the service's slow start.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import logging
import sqlite3
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from convotic_emulator import __version__
from convotic_emulator.engine.clock import SECOND_US
from convotic_emulator.engine.delivery import FutureWaiter
from convotic_emulator.engine.lease import Consumer
from convotic_emulator.errors import PubsubError
from convotic_emulator.services.reply import fill_messages
from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.registry import Subscription
    from convotic_emulator.engine.rules import Proto
    from convotic_emulator.services.oidc import TokenSigner

__all__ = ["Pushers"]

logger = logging.getLogger(__name__)

MAX_REQUESTS = 16
#: The documented bounds of the back-off of a whole subscription after refused requests.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 60.0
#: These acknowledge a message, https://cloud.google.com/pubsub/docs/push#receive_push.
ACKNOWLEDGING = frozenset({102, 200, 201, 202, 204})

_PULLED = pubsub.PullResponse


class Pushers:
    """One :class:`_Pusher` for each subscription that has an endpoint."""

    def __init__(self, engine: Engine, signer: TokenSigner) -> None:
        self._engine = engine
        self._signer = signer
        self._running: dict[int, asyncio.Task[None]] = {}

    def refresh(self, subscription: Subscription) -> None:
        """Start, stop or restart pushing, as the subscription says now."""
        self.stop(subscription)
        if subscription.proto.push_config.push_endpoint and not subscription.proto.detached:
            pusher = _Pusher(self._engine, subscription, self._signer)
            self._running[subscription.row.number] = asyncio.create_task(pusher.run())

    def stop(self, subscription: Subscription) -> None:
        """Stop pushing; requests in flight are cancelled, their leases stay."""
        task = self._running.pop(subscription.row.number, None)
        if task is not None:
            task.cancel()

    def stop_all(self) -> None:
        """Stop pushing for good."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()


class _Pusher:
    """Pushes the messages of one subscription until it is cancelled."""

    def __init__(self, engine: Engine, subscription: Subscription, signer: TokenSigner) -> None:
        self._engine = engine
        self._subscription = subscription
        self._signer = signer
        self._config = subscription.proto.push_config
        self._endpoint = urlsplit(self._config.push_endpoint)
        self._places = asyncio.Semaphore(MAX_REQUESTS)
        self._pause_seconds = 0.0
        self._resume_us = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._waiter: FutureWaiter | None = None

    async def run(self) -> None:
        """Push whatever there is."""
        try:
            while True:
                await self._places.acquire()
                entry = await self._next()
                task = asyncio.create_task(self._deliver(entry))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
                task.add_done_callback(lambda _: self._places.release())
        except PubsubError:
            pass  # the subscription is gone, or the server is going
        except sqlite3.Error as error:
            self._engine.commits.fail(error)
        finally:
            for task in list(self._requests):
                task.cancel()

    async def _next(self) -> Proto:
        """Lease one message: with ordering, the next of its key waits until it is settled."""
        state = self._subscription.state
        while True:
            while self._engine.clock.now_us() < self._resume_us:
                await _Pause(self._engine, self._resume_us).over
            self._waiter = waiter = FutureWaiter(
                state,
                Consumer(),  # another for each: the next of a key waits
                max_messages=1,
                lease_seconds=self._subscription.proto.ack_deadline_seconds,
            )
            self._engine.dispatcher.wait(waiter)
            try:
                messages = await waiter.result
            finally:
                self._engine.dispatcher.leave(waiter)
            if messages:
                response = _PULLED()
                fill_messages(state, response, messages)
                await self._engine.commits.committed()
                return response.received_messages[0]

    async def _deliver(self, entry: Proto) -> None:
        """Push one message; acknowledge or nack it as the endpoint answers."""
        paused = self._pause_seconds
        status = await self._push(entry)
        try:
            self._settle(entry, status, paused)
            await self._engine.commits.committed()
        except PubsubError:
            pass  # it is redelivered
        except sqlite3.Error as error:
            self._engine.commits.fail(error)

    async def _push(self, entry: Proto) -> int:
        """Return the endpoint's status; 0 for none."""
        try:
            async with asyncio.timeout(self._subscription.proto.ack_deadline_seconds):
                headers, body = self._render(entry)
                return await _post(self._endpoint, {**headers, **self._credentials()}, body)
        except (OSError, TimeoutError, ValueError) as error:
            logger.info("Push to %s failed: %s", self._config.push_endpoint, error)
            return 0

    def _settle(self, entry: Proto, status: int, paused: float) -> None:
        state, now_us = self._subscription.state, self._engine.clock.now_us()
        if status in ACKNOWLEDGING:
            self._subscription.used_us = now_us
            self._pause_seconds = 0.0
            state.acknowledge([entry.ack_id], now_us)
        else:
            if not state.rules.max_backoff_us:  # a retry policy has a back-off for each message
                doubled = min(max(FIRST_PAUSE_SECONDS, paused * 2), LAST_PAUSE_SECONDS)
                self._pause_seconds = max(self._pause_seconds, doubled)
                self._resume_us = now_us + round(self._pause_seconds * SECOND_US)
                if self._waiter is not None:
                    self._waiter.give_up()  # it was waiting before the pause
            state.modify([(entry.ack_id, 0)], now_us)

    def _credentials(self) -> Mapping[str, str]:
        """Return the header with the token that the subscription asks for."""
        if not self._config.HasField("oidc_token"):
            return {}
        wanted = self._config.oidc_token
        audience = wanted.audience or self._config.push_endpoint
        token = self._signer.token(wanted.service_account_email, audience)
        return {"Authorization": f"Bearer {token}"}

    def _render(self, entry: Proto) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of the request."""
        message, name = entry.message, self._subscription.row.name
        time = message.publish_time.ToJsonString()
        if self._config.HasField("no_wrapper"):
            headers: dict[str, str] = {}
            if self._config.no_wrapper.write_metadata:
                headers = dict(message.attributes) | {
                    "x-goog-pubsub-subscription-name": name,
                    "x-goog-pubsub-message-id": message.message_id,
                    "x-goog-pubsub-publish-time": time,
                }
                if message.ordering_key:
                    headers["x-goog-pubsub-ordering-key"] = message.ordering_key
                if entry.delivery_attempt:
                    headers["x-goog-pubsub-delivery-attempt"] = str(entry.delivery_attempt)
            return headers, message.data
        # Both spellings, as the service sends them.
        inner: dict[str, object] = {
            "data": base64.b64encode(message.data).decode(),
            "messageId": message.message_id,
            "message_id": message.message_id,
            "publishTime": time,
            "publish_time": time,
        }
        if message.attributes:
            inner["attributes"] = dict(message.attributes)
        if message.ordering_key:
            inner["orderingKey"] = message.ordering_key
        envelope: dict[str, object] = {"message": inner, "subscription": name}
        if entry.delivery_attempt:
            envelope["deliveryAttempt"] = entry.delivery_attempt
        return {"Content-Type": "application/json"}, json.dumps(envelope).encode()


class _Pause:
    """A wait on the server's clock, so that tests can shorten it."""

    def __init__(self, engine: Engine, until_us: int) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        engine.wake_at(until_us, self)

    @property
    def live(self) -> int:
        return int(not self.over.done())

    def fire(self, now_us: int) -> None:  # noqa: ARG002  # Timed's signature
        if not self.over.done():
            self.over.set_result(None)


async def _post(endpoint: SplitResult, headers: Mapping[str, str], body: bytes) -> int:
    """Send one HTTP/1.1 request; return the status. The connection is not kept."""
    target = (endpoint.path or "/") + (f"?{endpoint.query}" if endpoint.query else "")
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {endpoint.netloc.rpartition('@')[2]}",
        f"User-Agent: CloudPubSub-Google (convotic-emulator/{__version__})",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{key}: {value}" for key, value in headers.items() if _is_header(key, value)),
    ]
    secure = endpoint.scheme == "https"
    reader, writer = await asyncio.open_connection(
        endpoint.hostname,
        endpoint.port or (443 if secure else 80),
        ssl=_tls() if secure else None,
    )
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode("utf-8") + body)
        await writer.drain()
        words = (await reader.readline()).split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):  # noqa: PLR2004  # version, code
            raise ValueError("the endpoint does not speak HTTP/1.1")
        return int(words[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@functools.cache
def _tls() -> ssl.SSLContext:
    """Check certificates with the system's authorities, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()


def _is_header(key: str, value: str) -> bool:
    """Return whether an attribute can be sent as a header: no framing header, no line break."""
    framing = ("host", "content-length", "connection", "transfer-encoding")
    token = key.isascii() and all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in key)
    return token and key.lower() not in framing and value.isprintable()
