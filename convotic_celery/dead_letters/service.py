"""Dead letters for people and programs: :class:`DeadLetters`, as ``app.dead_letters``.

::

    from convotic_celery import create_app
    from convotic_celery.dead_letters import Match

    dead_letters = create_app().dead_letters
    for group in dead_letters.groups():
        print(group.open, group.handler, group.error_type, group.error_message)
    job = dead_letters.replay(Match(group=group.id), by="ada")
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convotic_celery.dead_letters.entry import DeadLetter, Group, Page, State
from convotic_celery.dead_letters.index import Index, in_batches
from convotic_celery.dead_letters.jobs import Action, Job, Journal
from convotic_celery.dead_letters.match import Match
from convotic_celery.dead_letters.passes import Passes, SyncReport
from convotic_celery.dead_letters.payload_text import show_payload
from convotic_celery.dead_letters.work import Work
from convotic_celery.errors import (
    DeadLetterNotFound,
    HandlerNotLoaded,
    StoreUnavailable,
    WrongDeadLetterState,
)
from convotic_celery.names import TARGET_ATTRIBUTE
from convotic_pubsub.errors import PubsubTransportError, SubscriptionNotFound

if TYPE_CHECKING:
    from convotic_celery.dead_letters.deployment import Deployment
    from convotic_celery.dead_letters.sending import OnProgress

__all__ = ["DeadLetters"]

#: How often a message may be replayed, unless the caller says otherwise.
DEFAULT_MAX_REPLAYS = 10
_SAMPLE = 100


class DeadLetters:
    """Lists, groups, shows, replays and deletes dead letters. Made by the app; thread-safe.

    Every method blocks, and raises StoreUnavailable where it needs the store: all but
    :meth:`list`, :meth:`groups` and :meth:`show`, which fall back on a sample.
    ``by`` says who acts, for the history and the action log.
    """

    def __init__(self, deployment: Deployment, index: Index) -> None:
        self._deployment = deployment
        self._index = index
        self._journal = Journal(index)

    # -- looking ----------------------------------------------------------------------------------

    def list(self, match: Match | None = None, *, limit: int = 50, cursor: str = "") -> Page:
        """Return some dead letters, newest first; ``cursor`` is an earlier page's next one."""
        match = match or Match()
        try:
            chosen, following = self._index.select(match, cursor=cursor, limit=limit)
            items = self._index.read([each.id for each in chosen])
            return Page(items=items, next_cursor=following, total=self._index.count(match))
        except StoreUnavailable:
            return Page(items=self._sample(match, limit), is_sample=True)

    def groups(self, match: Match | None = None) -> Sequence[Group]:
        """Return the groups that have dead letters which match, the newest first."""
        match = match or Match()
        try:
            groups = [each for each in self._index.groups() if match.takes_group(each)]
            if match.looks_at_entries or match.ids or match.older_than or match.newer_than:
                counts = Counter(each.group for each in self._index.each(match))
                groups = [
                    replace(group, counts={match.state: counts[group.id]})
                    for group in groups
                    if counts[group.id]
                ]
            return [group for group in groups if group.counts.get(match.state)]
        except StoreUnavailable:
            return _group(self._sample(match, _SAMPLE))

    def show(self, entry: str) -> DeadLetter:
        """Return one dead letter by its id or its message's; the newest, if several have it.

        Raises:
            DeadLetterNotFound: There is none.
        """
        try:
            found: Sequence[DeadLetter] = self._index.read(self._index.resolve([entry]))
        except StoreUnavailable:
            found = self._sample(Match(ids=(entry,)), 1)
        if not found:
            raise DeadLetterNotFound(entry)
        return max(found, key=lambda dead: dead.dead_lettered_at)

    def export(self, match: Match | None = None) -> Iterator[DeadLetter]:
        """Yield all that match, newest first."""
        chosen = [each.id for each in self._index.each(match or Match())]
        for some in in_batches(chosen, 500):
            yield from self._index.read(some)

    def count(self, match: Match) -> int:
        """Return how many match now."""
        known = self._index.count(match)
        return sum(1 for _ in self._index.each(match)) if known is None else known

    def _sample(self, match: Match, limit: int) -> Sequence[DeadLetter]:
        handlers = [match.handler] if match.handler else sorted(self._deployment.specs())
        passes = Passes(self._deployment, self._index)
        now = self._index.now()
        return [d for d in passes.sample(handlers, max(limit, _SAMPLE)) if match.takes(d, now)][
            :limit
        ]

    # -- replaying --------------------------------------------------------------------------------

    def replay(
        self,
        match: Match,
        *,
        by: str,
        limit: int | None = None,
        rate: float = 0.0,
        stagger: float = 0.0,
        max_replays: int = DEFAULT_MAX_REPLAYS,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Publish what matches now again for the handler that failed; return the finished job.

        Args:
            match: What to take; failures that come meanwhile are not among it.
            by: Who does it.
            limit: At most so many, the oldest first.
            rate: At most so many messages a second; 0: no limit.
            stagger: Spread them evenly over so many seconds, instead of a rate.
            max_replays: The loop guard: what was replayed so often is skipped.
            on_progress: Called with the job after each batch.

        Raises:
            WrongDeadLetterState: ``match.state`` has nothing that can be replayed.
        """
        job = self.begin(
            "replay",
            match,
            by=by,
            limit=limit,
            rate=rate,
            stagger=stagger,
            max_replays=max_replays,
        )
        return self.resume(job.id, on_progress)

    def redirect(
        self,
        match: Match,
        to: str,
        *,
        by: str,
        limit: int | None = None,
        rate: float = 0.0,
        stagger: float = 0.0,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Publish what matches for another handler, by its queue; otherwise as :meth:`replay`.

        Raises:
            HandlerNotLoaded: There is no such handler.
        """
        job = self.begin(
            "redirect", match, by=by, limit=limit, rate=rate, stagger=stagger, target=to
        )
        return self.resume(job.id, on_progress)

    def purge(
        self,
        match: Match,
        *,
        by: str,
        limit: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Delete what matches for good, entry and message."""
        return self.resume(self.begin("purge", match, by=by, limit=limit).id, on_progress)

    def begin(
        self,
        action: Action,
        match: Match,
        *,
        by: str,
        limit: int | None = None,
        rate: float = 0.0,
        stagger: float = 0.0,
        max_replays: int = DEFAULT_MAX_REPLAYS,
        target: str = "",
    ) -> Job:
        """Choose what matches now and note it as a job, for :meth:`resume` to do."""
        if match.state in {"replayed", "purged"}:
            raise WrongDeadLetterState(action, match.state)
        if target and self._deployment.definition(target) is None:
            raise HandlerNotLoaded(target, [d.queue for d in self._deployment.definitions])
        job = self._journal.begin(
            action,
            match,
            by=by,
            limit=limit,
            target=target,
            rate=rate,
            max_replays=max_replays,
            warnings=self.warnings(match, target) if action != "purge" else (),
        )
        if stagger and job.total:
            job = self._journal.set_rate(job, job.total / stagger)
        self._index.log(by, action, job.what, job.total, job.id)
        return job

    def resume(self, job: str, on_progress: OnProgress | None = None, *, by: str = "") -> Job:
        """Do what is left of a job: after :meth:`begin`, or after its process died.

        ``by`` is who does it, if that is not who began it.

        Raises:
            JobTaken: Another process works on it.
            LookupError: There is no such job.
        """
        found = self._journal.read(job)
        if found.is_over:
            return found
        if by:
            self._index.log(by, "resume", found.what, found.total - found.done, job)
        return Work(self._deployment, self._index, self._journal).run(found, on_progress)

    def job(self, job: str) -> Job:
        """Return a job as it is now; raises LookupError."""
        return self._journal.read(job)

    def jobs(self, limit: int = 50) -> Sequence[Job]:
        """Return the newest jobs."""
        return self._journal.newest(limit)

    def cancel(self, job: str, *, by: str) -> bool:
        """End a job before its next batch; what is done stays done. False if it is over."""
        cancelled = self._journal.cancel(job)
        if cancelled:
            self._index.log(by, "cancel", job, 1, job)
        return cancelled

    def warnings(self, match: Match, target: str = "") -> Sequence[str]:
        """Say which subscriptions of other handlers would see a replay too."""
        handlers = {target} if target else {group.handler for group in self.groups(match)}
        found = []
        for handler in sorted(handlers):
            spec = self._deployment.specs().get(handler)
            if spec is None:
                continue
            try:
                session = self._deployment.session()
                names = session.resources.unfiltered_subscriptions(spec.topic, TARGET_ATTRIBUTE)
            except PubsubTransportError as error:
                found.append(f"who else subscribes to {spec.topic} is not known: {error}")
                continue
            found += [
                f"subscription {name} of topic {spec.topic} has no filter for "
                f"{TARGET_ATTRIBUTE}: it gets the messages too"
                for name in names
                if name != spec.subscription
            ]
        return found

    # -- one by one -------------------------------------------------------------------------------

    def edit(
        self,
        entry: str,
        data: bytes | None,
        *,
        by: str,
        check: bool = True,
        dry_run: bool = False,
    ) -> str:
        """Have the next replay publish other data; return the difference. None: the original.

        The original is kept, in the entry and in the message. ``check=False`` accepts what the
        handler can't read.

        Raises:
            DeadLetterNotFound: There is none.
            WrongDeadLetterState: It is replayed or purged.
            InvalidMessage: The data is no JSON, or does not fit the handler's payload type.
        """
        dead = self.show(entry)
        if dead.state in {"replayed", "purged"}:
            raise WrongDeadLetterState("edit", dead.state)
        if check and data is not None:
            self._deployment.check_data(dead.handler, data)
        if not dry_run:
            self._index.edit(dead.id, data, by)
            self._index.log(by, "edit", f"{dead.handler} {dead.message_id}", 1)
        return difference(dead.data or b"", dead.data or b"" if data is None else data)

    def archive(self, match: Match, *, by: str) -> int:
        """Put what matches out of sight; the messages stay. Return how many."""
        return self._move(match, by, "archive", to="archived", of=("open", "missing"))

    def restore(self, match: Match, *, by: str) -> int:
        """Undo :meth:`archive` for what matches among the archived; return how many."""
        match = replace(match, state="archived")
        return self._move(match, by, "restore", to="open", of=("archived",))

    def _move(self, match: Match, by: str, action: str, *, to: State, of: tuple[State, ...]) -> int:
        chosen = [each.id for each in self._index.each(match)]
        moved = self._index.move(chosen, to=to, of=of, action=action, by=by)
        self._index.log(by, action, match.describe(), moved)
        return moved

    # -- the index --------------------------------------------------------------------------------

    def sync(self, handler: str = "", *, by: str = "") -> Sequence[SyncReport]:
        """Bring the index in line with the dead-letter subscriptions, of all queues by default.

        Takes in what has no entry, acknowledges what was replayed or purged, and marks entries
        without a message as missing. ``by`` is who does it; "" keeps it out of the action log.
        """
        handlers = [handler] if handler else sorted(self._deployment.specs())
        by_subscription = {
            self._deployment.dead_letter_subscription(each): each for each in reversed(handlers)
        }
        passes = Passes(self._deployment, self._index)
        reports: list[SyncReport] = []
        for each in sorted(by_subscription.values()):
            try:
                reports.append(passes.sync(each))
            except SubscriptionNotFound:
                if handler or not self._deployment.is_task_queue(each):
                    raise  # of ordinary tasks it is missing until a worker consumes the queue
        if by:
            changed = sum(each.taken_in + each.acknowledged + each.missing for each in reports)
            self._index.log(by, "sync", handler or "all handlers", changed)
        return reports

    def log(self, limit: int = 100) -> Sequence[dict[str, str]]:
        """Return the newest lines of the action log: at, by, action, what, count, job."""
        return self._index.read_log(limit)


def difference(before: bytes, after: bytes) -> str:
    """Return how two payloads differ, as a unified diff; JSON is indented first."""
    old, new = (show_payload(each).splitlines() for each in (before, after))
    diff = difflib.unified_diff(old, new, "original", "edited", lineterm="")
    return "\n".join(diff)


def _group(sample: Sequence[DeadLetter]) -> list[Group]:
    found: dict[str, Group] = {}
    for dead in sample:  # newest first
        known = found.get(dead.group)
        found[dead.group] = Group(
            id=dead.group,
            handler=dead.handler,
            reason=dead.reason,
            error_type=dead.error_type,
            error_message=known.error_message if known else dead.error_message,
            stack=dead.stack,
            first_at=dead.dead_lettered_at,
            last_at=known.last_at if known else dead.dead_lettered_at,
            counts={"open": (known.open if known else 0) + 1},
        )
    return list(found.values())
