"""A page about the server for a person's browser, on a port of its own.

That is on 127.0.0.1 whatever ``--host`` says of gRPC's. It does four things, and needs no framework
for them. Other sites' pages can't use it: requests must name this machine (no DNS rebinding), what
changes something must come from the page itself (Origin), and nothing but the page's own style is
loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from convotic_emulator.errors import (
    InvalidArgument,
    NotFound,
    PubsubError,
    ResourceExhausted,
    Unavailable,
)
from convotic_emulator.services.checks import check_messages
from convotic_emulator.services.page_html import (
    Overview,
    render_error,
    render_messages,
    render_overview,
)
from convotic_emulator.services.schemas import apply_schema
from convotic_local.browser import find_refusal
from convotic_protos import pubsub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convotic_emulator.engine.engine import Engine
    from convotic_emulator.engine.registry import Subscription

__all__ = ["Page"]

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
#: A message of the size limit, percent-encoded, is larger; use a client for that.
MAX_BODY_BYTES = 2_000_000
#: Python refuses to read numbers of thousands of digits.
MAX_DIGITS = 18
MAX_HEADER_BYTES = 32 * 1024
REQUEST_SECONDS = 10.0
#: Messages on one page.
PAGE_MESSAGES = 50
PAGE_BYTES = 1_000_000

_MESSAGE = pubsub.PubsubMessage
_REASONS = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    503: "Service Unavailable",
}
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = (
    "Content-Type: text/html; charset=utf-8",
    "Cache-Control: no-store",
    "Connection: close",
    f"Content-Security-Policy: {_POLICY}",
    "Referrer-Policy: same-origin",
    "X-Content-Type-Options: nosniff",
)


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    fields: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Answer:
    status: int
    body: str = ""
    location: str = ""


class _Refused(Exception):
    """A request that is not answered with a page."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _none() -> str | None:
    return None


class Page:
    """The page of one server. ``url`` is known once started.

    Args:
        engine: Whose topics and subscriptions it shows.
        find_dashboard: Returns the address of the framework's dashboard while one is running.
    """

    def __init__(self, engine: Engine, find_dashboard: Callable[[], str | None] = _none) -> None:
        self._engine = engine
        self._find_dashboard = find_dashboard
        self._server: asyncio.Server | None = None
        self.port = 0
        #: When it was last asked for, by time.monotonic().
        self.used_at = float("-inf")

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.port}/"

    async def start(self, port: int = 0) -> None:
        """Listen on a port, or on any if that one is taken."""
        try:
            self._server = await asyncio.start_server(
                self._serve, HOST, port, limit=MAX_HEADER_BYTES
            )
        except OSError:
            if not port:
                raise
            self._server = await asyncio.start_server(self._serve, HOST, 0, limit=MAX_HEADER_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.used_at = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._answer(reader)
                body = answer.body.encode()
                head = [
                    f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
                    f"Content-Length: {len(body)}",
                    *_HEADERS,
                    *([f"Location: {answer.location}"] if answer.location else []),
                ]
                writer.write("\r\n".join([*head, "", ""]).encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, EOFError):
            pass  # the browser has gone, or sent half a request
        except Exception:
            logger.exception("The page could not be shown.")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> _Answer:
        try:
            request = await _read(reader)
            self._check_sender(request)
            return await self._route(request)
        except _Refused as error:
            return _Answer(error.status, render_error(str(error)))
        except NotFound as error:
            return _Answer(404, render_error(str(error)))
        except (ResourceExhausted, Unavailable) as error:
            return _Answer(503, render_error(str(error)))
        except PubsubError as error:
            return _Answer(400, render_error(str(error)))
        except sqlite3.Error as error:
            self._engine.commits.fail(error)
            return _Answer(503, render_error(f"The data file can't be used: {error}."))

    def _check_sender(self, request: _Request) -> None:
        headers = request.headers
        reason = find_refusal(request.method, headers.get("host", ""), headers.get("origin"))
        if reason:
            raise _Refused(403, reason)

    async def _route(self, request: _Request) -> _Answer:
        target = (request.method, request.path)
        if target == ("GET", "/"):
            return _Answer(200, self._overview(request.fields.get("published", "")))
        if target == ("GET", "/subscription"):
            return _Answer(200, self._messages(request.fields))
        if target == ("POST", "/publish"):
            message_id = await self._publish(request.fields)
            return _Answer(303, location=f"/?published={quote(message_id)}")
        raise _Refused(404, "There is no such page.")

    def _overview(self, published: str) -> str:
        registry = self._engine.registry
        topics = [(name, len(topic.subscriptions)) for name, topic in registry.topics.items()]
        rows = [self._row(s) for s in registry.subscriptions.values()]
        return render_overview(
            sorted(topics),
            sorted(rows, key=lambda row: row.name),
            published=published,
            dashboard=self._find_dashboard(),
        )

    def _row(self, subscription: Subscription) -> Overview:
        number, state = subscription.row.number, subscription.state
        count, outstanding = self._engine.store.counts.messages(number), len(state.outstanding)
        oldest_us = self._engine.store.backlogs.oldest_us(number)
        age_us = None if oldest_us is None else self._engine.clock.now_us() - oldest_us
        return Overview(
            name=subscription.row.name,
            topic=subscription.proto.topic,
            available=count - outstanding,
            outstanding=outstanding,
            dead_lettered=self._engine.store.counts.dead_letters(number),
            oldest_seconds=None if age_us is None else age_us / 1e6,
        )

    def _messages(self, fields: Mapping[str, str]) -> str:
        subscription = self._engine.registry.subscription(fields.get("name", ""))
        after = fields.get("after", "0")
        if not after.isdecimal() or len(after) > MAX_DIGITS:  # SQLite's integers too
            raise InvalidArgument("after must be a number.")
        store, number = self._engine.store, subscription.row.number
        rows, more = store.backlogs.read_page(number, int(after), PAGE_MESSAGES, PAGE_BYTES)
        leased = subscription.state.outstanding
        entries = [
            (
                _MESSAGE.FromString(row.body or b""),
                "outstanding" if row.seq in leased else "available",
                row.attempts,
            )
            for row in rows
        ]
        following = rows[-1].seq if more and rows else None
        return render_messages(subscription.row.name, entries, following=following)

    async def _publish(self, fields: Mapping[str, str]) -> str:
        topic = self._engine.registry.topic(fields.get("topic", ""))
        message = _MESSAGE(
            data=fields.get("data", "").replace("\r\n", "\n").encode(),
            ordering_key=fields.get("ordering_key", ""),
        )
        for line in fields.get("attributes", "").splitlines():
            key, equals, value = line.partition("=")
            if line.strip():
                if not equals:
                    raise InvalidArgument(f"An attribute is key=value, not {line!r}.")
                message.attributes[key.strip()] = value.strip()
        check_messages([message])
        self._engine.commits.check_usable()
        self._engine.commits.check_room()
        if topic.has_schema:
            apply_schema(self._engine, topic, [message])
        [message_id] = self._engine.broker.publish(topic, [message])
        await self._engine.commits.committed()
        return message_id


async def _read(reader: asyncio.StreamReader) -> _Request:
    """Read one request; _Refused if it is not one that a browser sends."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        raise _Refused(400, "The request's headers are too long.") from None
    line, *rest = head.rstrip("\r\n").split("\r\n")
    words = line.split(" ")
    if len(words) != 3:  # noqa: PLR2004  # method, target, version
        raise _Refused(400, "This is not HTTP.")
    headers = {
        key.strip().lower(): value.strip() for key, _, value in (h.partition(":") for h in rest)
    }
    try:
        parts = urlsplit(words[1])
    except ValueError:
        raise _Refused(400, "This is no address of a page.") from None
    query = parts.query
    if words[0] == "POST":
        length = headers.get("content-length", "")
        if not length.isdecimal() or len(length) > MAX_DIGITS or int(length) > MAX_BODY_BYTES:
            raise _Refused(400, f"The form may have {MAX_BODY_BYTES} bytes.")
        query = (await reader.readexactly(int(length))).decode("latin-1")
    try:
        fields = {
            key: values[-1]
            for key, values in parse_qs(query, keep_blank_values=True, max_num_fields=20).items()
        }
    except ValueError:
        raise _Refused(400, "The form has too many fields.") from None
    return _Request(words[0], parts.path, fields, headers)
