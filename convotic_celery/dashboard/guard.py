"""Which requests are answered, and what every answer says to the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from convotic_local.browser import LOOPBACK_NAMES, find_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses what other sites send (``convotic_local.browser``), and every change if read-only.

    A change must also have JSON's Content-Type, which a form of another site can't send.
    """

    def __init__(self, app: ASGIApp, *, names: Iterable[str], read_only: bool) -> None:
        self._app = app
        self._names = LOOPBACK_NAMES | {name.lower() for name in names}
        self._read_only = read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, reason = self._find_refusal(scope["method"], Headers(scope=scope))
        app = JSONResponse({"error": reason}, status_code=status) if reason else self._app

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # The browser asks each time, and gets 304: a page and its parts stay together.
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        await app(scope, receive, send_with_headers)

    def _find_refusal(self, method: str, headers: Headers) -> tuple[int, str | None]:
        reason = find_refusal(
            method, headers.get("host", ""), headers.get("origin"), names=self._names
        )
        if reason:
            return 403, reason
        if method in {"GET", "HEAD"}:
            return 200, None
        if self._read_only:
            return 403, "The dashboard is read-only: CONVOTIC_DASHBOARD_READ_ONLY is set."
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "Send JSON, with the header Content-Type: application/json."
        return 200, None
