"""What Flower's tab *Dead letters* does. POST only; the token of a form of ours is needed."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from tornado import web

from convotic_celery.errors import ConvoticError
from convotic_celery.flower.pages import Page
from convotic_celery.flower.parts import may_act, shows_payloads

__all__ = ["Act"]

logger = logging.getLogger(__name__)

_JOBS = frozenset({"replay", "redirect", "purge"})


class Act(Page):
    """One action on what the form chooses."""

    def check_xsrf_cookie(self) -> None:
        """Refuse a form of another site; Flower itself does not ask where there is no login."""
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise web.HTTPError(403, "Cross-site request forbidden")
        web.RequestHandler.check_xsrf_cookie(self)

    @web.authenticated
    async def post(self, action: str) -> None:
        """Do it, and go to the page that shows it."""
        refused = may_act(self)
        if refused:
            raise web.HTTPError(403, f"Nothing can be done here: {refused}")
        if action in _JOBS:
            await self._begin(action)
            return
        simple: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "archive": self._archive,
            "restore": self._restore,
            "edit": self._edit,
            "cancel": self._cancel,
            "resume": self._resume,
            "sync": self._sync,
        }
        if action not in simple:
            raise web.HTTPError(404, "There is no such action")
        await simple[action]()

    def who(self) -> str:
        """Return who is logged in."""
        user = self.current_user
        if isinstance(user, str):
            return f"{user} (Flower)"
        scheme, _, credentials = self.request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                name = base64.b64decode(credentials).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                name = "?"
            return f"{name} (Flower)"
        return "Flower"

    def field(self, name: str) -> str:
        """Return a field of the form."""
        return str(super().get_argument(name, "", escape=False) or "")

    async def _begin(self, action: Any) -> None:
        match, by = self.match(), self.who()
        target = self.field("to") if action == "redirect" else ""
        if action == "redirect" and not target:
            raise web.HTTPError(400, "Redirect: to which handler?")
        dead = self.dead_letters
        job = await self.ask(lambda: dead.begin(action, match, by=by, target=target))
        self._start(job.id)

    def _start(self, job: str, by: str = "") -> None:
        dead = self.dead_letters

        def work() -> None:
            try:
                dead.resume(job, by=by)
            except ConvoticError as error:
                logger.warning("Job %s of dead letters stopped; it can be resumed: %s", job, error)
            except Exception:
                logger.exception("Job %s stopped, and can be resumed", job)

        self.application.executor.submit(work)
        self.redirect(self.reverse_url("dead-letters-job", job))

    async def _archive(self) -> None:
        match, by = self.match(), self.who()
        await self.ask(lambda: self.dead_letters.archive(match, by=by))
        self.redirect(self.reverse_url("dead-letters"))

    async def _restore(self) -> None:
        match, by = self.match(), self.who()
        await self.ask(lambda: self.dead_letters.restore(match, by=by))
        self.redirect(self.reverse_url("dead-letters"))

    async def _edit(self) -> None:
        if not shows_payloads(self):
            raise web.HTTPError(403, "Payloads are hidden, so they can't be edited")
        entry, by = self.field("ids"), self.who()
        data = None if self.field("original") else self.field("data").encode()
        await self.ask(lambda: self.dead_letters.edit(entry, data, by=by))
        self.redirect(self.reverse_url("dead-letter", entry))

    async def _cancel(self) -> None:
        job, by = self.field("job"), self.who()
        await self.ask(lambda: self.dead_letters.cancel(job, by=by))
        self.redirect(self.reverse_url("dead-letters-job", job))

    async def _resume(self) -> None:
        job = await self.ask(lambda: self.dead_letters.job(self.field("job")))
        self._start(job.id, self.who())

    async def _sync(self) -> None:
        dead, by = self.dead_letters, self.who()
        await self.ask(lambda: dead.sync(by=by))
        self.redirect(self.reverse_url("dead-letters"))
