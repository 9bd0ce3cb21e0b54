"""The pages of Flower's tab *Dead letters*: list and groups, one dead letter, a job, the export."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from flower.views import BaseHandler  # type: ignore[import-untyped]
from tornado import web

from convotic_celery.dead_letters.payload_text import payload_text, show_payload
from convotic_celery.errors import ConvoticError, DeadLetterNotFound, InvalidField
from convotic_celery.flower.parts import FILTERS, match_of, may_act, shows_payloads
from convotic_pubsub.age import show_age

if TYPE_CHECKING:
    from convotic_celery.dead_letters import DeadLetter, DeadLetters, Match

__all__ = ["Export", "Page", "ShowJob", "ShowList", "ShowOne"]

T = TypeVar("T")

_PER_PAGE = 50
_MAX_EXPORT = 100_000


class Page(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """What our pages share."""

    @property
    def dead_letters(self) -> DeadLetters:
        """The app's."""
        found: DeadLetters | None = getattr(self.capp, "dead_letters", None)
        if found is None:
            raise web.HTTPError(
                404, "This Celery app is not a Convotic app, so it has no dead letters here"
            )
        return found

    async def ask(self, function: Callable[[], T]) -> T:
        """Run a blocking function in a thread; an error meant for a person becomes the answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, function)
        except (DeadLetterNotFound, LookupError) as error:  # LookupError: of a job
            raise web.HTTPError(404, str(error)) from None
        except InvalidField as error:
            raise web.HTTPError(400, str(error)) from None
        except ConvoticError as error:
            raise web.HTTPError(503, str(error)) from None

    def given(self) -> dict[str, str]:
        """Return the query's or the form's values."""
        names = (*FILTERS, "attribute", "payload", "ids", "cursor")
        found = {name: super(Page, self).get_argument(name, "", escape=False) for name in names}
        return {name: str(value) for name, value in found.items() if value}

    def match(self) -> Match:
        """Return what the query or the form chooses.

        Hidden payloads can't be searched either: that would reveal them.
        """
        try:
            match = match_of(self.given())
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from None
        if (match.payload or match.attributes) and not shows_payloads(self):
            raise web.HTTPError(403, "Payloads are hidden, so they can't be searched")
        return match

    def show(self, template: str, **values: Any) -> None:
        """Render one of our templates."""
        self.render(
            template,
            refused=may_act(self),
            shows_payloads=shows_payloads(self),
            age=_age_of,
            pretty=_pretty,
            payload_text=payload_text,
            **values,
        )


class ShowList(Page):
    """Groups, and dead letters that match."""

    @web.authenticated
    async def get(self) -> None:
        """Answer the page."""
        given, match = self.given(), self.match()
        dead = self.dead_letters
        cursor = given.get("cursor", "")
        page = await self.ask(lambda: dead.list(match, limit=_PER_PAGE, cursor=cursor))
        groups = await self.ask(lambda: dead.groups(match))
        jobs = [] if page.is_sample else await self.ask(lambda: dead.jobs(5))
        outcomes = []
        if match.handler and not page.is_sample:
            outcomes = await self.ask(lambda: self.capp.last_outcomes.last(match.handler, 20))
        queues = {each.handler for each in groups}  # of ordinary tasks, too
        handlers = sorted(queues | {definition.queue for definition in self.capp.definitions})
        self.show(
            "dead_letters.html",
            given=given,
            match=match,
            page=page,
            groups=groups,
            jobs=jobs,
            handlers=handlers,
            outcomes=outcomes,
        )


class ShowOne(Page):
    """One dead letter."""

    @web.authenticated
    async def get(self, entry: str) -> None:
        """Answer the page."""
        dead = await self.ask(lambda: self.dead_letters.show(entry))
        handlers = sorted(d.queue for d in self.capp.definitions if d.queue != dead.handler)
        self.show("dead_letter.html", dead=dead, handlers=handlers)


class ShowJob(Page):
    """A replay, redirect or purge, and its progress."""

    @web.authenticated
    async def get(self, job: str) -> None:
        """Answer the page, which reloads itself while the job runs."""
        found = await self.ask(lambda: self.dead_letters.job(job))
        self.show("dead_letter_job.html", job=found)


class Export(Page):
    """All that match, as JSON, one a line."""

    @web.authenticated
    async def get(self) -> None:
        """Answer the file."""
        match = self.match()
        lines = self.dead_letters.export(match)
        with_payload = shows_payloads(self)
        self.set_header("Content-Type", "application/x-ndjson")
        self.set_header("Content-Disposition", 'attachment; filename="dead-letters.jsonl"')

        def take() -> list[DeadLetter]:
            return [dead for _, dead in zip(range(500), lines, strict=False)]

        for _ in range(_MAX_EXPORT // 500):
            some = await self.ask(take)
            for dead in some:
                shown = dead.to_json(with_payload=with_payload)
                self.write(json.dumps(shown, ensure_ascii=False) + "\n")
            await self.flush()
            if not some:
                break


def _age_of(moment: datetime) -> str:
    return show_age((datetime.now(UTC) - moment).total_seconds())


def _pretty(data: bytes | None) -> str:
    """Return data as a person reads it."""
    return "" if data is None else show_payload(data)
