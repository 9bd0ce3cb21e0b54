"""``replay``, ``redirect`` and ``purge`` of ``convotic dlq``, and their jobs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from convotic_celery.cli.columns import align
from convotic_celery.cli.dlq.choosing import AS_JSON, BY, choose, dead_letters, match_or_refuse
from convotic_celery.cli.dlq.looking import print_groups
from convotic_celery.cli.options import examples, limit_option

if TYPE_CHECKING:
    from convotic_celery.dead_letters import DeadLetters, Job, Match

__all__ = ["COMMANDS"]

F = TypeVar("F", bound=Callable[..., Any])

_VERBS = {"replay": "replayed", "redirect": "redirected", "purge": "purged"}


def _acts(function: F) -> F:
    """Add the options of all that acts on many."""
    options = (
        choose(),
        click.option(
            "--all", "everything", is_flag=True, help="Choose all; needs no ID or condition."
        ),
        click.option("--archived", is_flag=True, help="Choose archived ones, not open ones."),
        click.option(
            "--missing",
            is_flag=True,
            help="Choose among those whose message is missing, not the open ones.",
        ),
        click.option(
            "--limit", type=click.IntRange(1), help="At most this many, the oldest first."
        ),
        click.option("--dry-run", is_flag=True, help="Only print what would be done."),
        BY,
        AS_JSON,
    )
    for option in reversed(options):
        function = option(function)
    return function


def _paces(function: F) -> F:
    """Add the options of what publishes."""
    options = (
        click.option(
            "--rate",
            type=click.FloatRange(min=0, min_open=True),
            default=None,
            help="At most this many messages a second. Default: as fast as the server takes them.",
        ),
        click.option(
            "--stagger",
            type=click.FloatRange(min=0, min_open=True),
            default=None,
            metavar="SECONDS",
            help="Spread them evenly over this many seconds.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(
    "replay",
    epilog=examples(
        "convotic dlq replay --group 9d38af8389a5 --dry-run",
        "convotic dlq replay --handler custom.orders.new.shop --rate 50",
    ),
)
@_acts
@_paces
@click.option(
    "--max-replays",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    help="Skip those that have been replayed this many times already.",
)
def replay_command(max_replays: int, **given: Any) -> int:
    """Publish dead letters again, only for the handler that failed.

    Includes what matches now, not what fails meanwhile. A message keeps its id, and
    its attempts begin at 1. If this is interrupted, nothing is lost: see `convotic dlq jobs`. Exit
    code 1 if one could not be published.
    """
    return _act("replay", given, max_replays=max_replays)


@click.command(
    "redirect",
    epilog=examples(
        "convotic dlq redirect --group 9d38af8389a5 --to custom.orders.new.crm",
    ),
)
@click.option("--to", required=True, metavar="QUEUE", help="The handler that gets them.")
@_acts
@_paces
def redirect_command(to: str, **given: Any) -> int:
    """Publish dead letters for another handler.

    Of whatever topic: only that handler gets them. The rest is as with `convotic dlq replay`.
    """
    return _act("redirect", given, target=to)


@click.command(
    "purge",
    epilog=examples(
        "convotic dlq purge --older-than 14d --dry-run",
        "convotic dlq purge --archived --all --yes",
    ),
)
@_acts
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
def purge_command(yes: bool, **given: Any) -> int:
    """Delete dead letters for good, with their messages.

    Asks first, on a terminal; elsewhere it needs --yes.
    """
    return _act("purge", given, asks=not yes)


def _act(action: Any, given: dict[str, Any], *, asks: bool = False, **options: Any) -> int:
    by, as_json, limit = given.pop("by"), given.pop("as_json"), given.pop("limit")
    dry_run, everything = given.pop("dry_run"), given.pop("everything")
    archived, missing = given.pop("archived"), given.pop("missing")
    rate, stagger = given.pop("rate", None) or 0.0, given.pop("stagger", None) or 0.0
    if archived and missing:
        raise click.UsageError("Choose one of --archived and --missing.")
    state = "archived" if archived else "missing" if missing else "open"
    match = match_or_refuse({**given, "state": state}, everything=everything)
    with dead_letters() as found:
        if dry_run:
            target = options.get("target", "")
            return _say_what(found, action, match, limit=limit, target=target, as_json=as_json)
        if asks:
            _ask(found, match, limit)
        job = found.begin(action, match, by=by, limit=limit, rate=rate, stagger=stagger, **options)
        for warning in job.warnings:
            click.echo(f"Warning: {warning}", err=True)
        return _do(found, job, as_json)


def _say_what(
    found: DeadLetters,
    action: str,
    match: Match,
    *,
    limit: int | None,
    target: str,
    as_json: bool,
) -> int:
    count = found.count(match)
    count = count if limit is None else min(count, limit)
    warnings = list(found.warnings(match, target)) if action != "purge" else []
    groups = found.groups(match)
    if as_json:
        shown = {"would": action, "count": count, "warnings": warnings}
        click.echo(json.dumps({**shown, "groups": [g.to_json() for g in groups]}, indent=2))
        return 0
    verb = f"{_VERBS[action]}{f' to {target}' if target else ''}"
    click.echo(f"{count:,} would be {verb}{':' if groups else ''}")
    if groups:
        print_groups(groups, match.state)
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    return 0


def _ask(found: DeadLetters, match: Match, limit: int | None) -> None:
    count = found.count(match)
    count = count if limit is None else min(count, limit)
    if not sys.stdin.isatty():
        raise click.UsageError(f"This deletes {count:,} dead letters for good: say --yes.")
    click.confirm(f"Delete {count:,} dead letters for good?", abort=True)


def _do(found: DeadLetters, job: Job, as_json: bool, by: str = "") -> int:
    progress = _Progress()
    try:
        job = found.resume(job.id, progress, by=by)
    except KeyboardInterrupt:
        progress.end()
        job = found.job(job.id)
        click.echo(
            f"Interrupted: {job.done:,} of {job.total:,} have been {_VERBS[job.action]}. "
            f"`convotic dlq resume {job.id}` does the rest, `convotic dlq cancel {job.id}` leaves "
            "it.",
            err=True,
        )
        raise
    progress.end()
    if as_json:
        click.echo(json.dumps(job.to_json(), indent=2))
    else:
        click.echo(_describe(job))
    return 1 if job.failed or job.not_found or job.state != "done" else 0


def _describe(job: Job) -> str:
    verb = _VERBS[job.action] + (f" to {job.target}" if job.target else "")
    parts = [f"{job.done:,} of {job.total:,} {verb}"]
    if job.skipped:
        parts.append(f"{job.skipped:,} skipped (replayed {job.max_replays} times, or changed)")
    if job.failed:
        parts.append(f"{job.failed:,} could not be published and stay")
    if job.not_found:
        parts.append(f"{job.not_found:,} not found; `convotic dlq sync` looks again")
    left = job.done - job.collected
    if left > 0 and job.state == "done":
        parts.append(
            f"{left:,} messages are still to be acknowledged (someone holds them): "
            "`convotic dlq sync` does it"
        )
    state = "" if job.state == "done" else f"{job.state}: "
    return f"{state}{'; '.join(parts)}. Job {job.id}"


class _Progress:
    """A line on a terminal that says how far it is."""

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._began = time.monotonic()

    def __call__(self, job: Job) -> None:
        if self._shows:
            speed = job.done / max(0.001, time.monotonic() - self._began)
            text = f"{job.done:,}/{job.total:,} {_VERBS[job.action]}, {speed:,.0f}/s"
            if job.state == "collecting":
                text = f"{job.collected:,}/{job.done:,} acknowledged"
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def end(self) -> None:
        """Clear the line."""
        if self._shows:
            click.echo("\r\x1b[K", err=True, nl=False)


@click.command("jobs", epilog=examples("convotic dlq jobs --json"))
@limit_option(20, 1000)
@AS_JSON
def jobs_command(limit: int, as_json: bool) -> None:
    """Show replays, redirects and purges, and their progress."""
    with dead_letters() as found:
        jobs = found.jobs(limit)
    if as_json:
        click.echo(json.dumps([job.to_json() for job in jobs], indent=2))
        return
    rows = [
        (
            job.id,
            job.began_at.isoformat(timespec="seconds")[:19],
            job.by,
            job.action,
            f"{job.state} (its process is gone)" if job.is_abandoned else job.state,
            f"{job.done:,}/{job.total:,}",
            job.what,
        )
        for job in jobs
    ]
    click.echo(align(("job", "began", "by", "action", "state", "done", "what"), rows))


@click.command("resume", epilog=examples("convotic dlq jobs", "convotic dlq resume JOB"))
@click.argument("job")
@AS_JSON
@BY
def resume_command(job: str, as_json: bool, by: str) -> int:
    """Finish a job whose process is gone."""
    with dead_letters() as found:
        return _do(found, _find(found, job), as_json, by)


@click.command("cancel", epilog=examples("convotic dlq jobs", "convotic dlq cancel JOB"))
@click.argument("job")
@BY
@AS_JSON
def cancel_command(job: str, by: str, as_json: bool) -> int:
    """Stop a job; what it has done stays done. Exit code 1 if it has ended already."""
    with dead_letters() as found:
        _find(found, job)
        cancelled = found.cancel(job, by=by)
    if as_json:
        click.echo(json.dumps({"job": job, "cancelled": cancelled}))
    elif cancelled:
        click.echo(f"{job} ends before its next batch.")
    else:
        click.echo(f"{job} has ended already.", err=True)
    return 0 if cancelled else 1


def _find(found: DeadLetters, job: str) -> Job:
    try:
        return found.job(job)
    except LookupError as error:
        raise click.BadParameter(str(error.args[0]), param_hint="JOB") from None


COMMANDS = (
    replay_command,
    redirect_command,
    purge_command,
    jobs_command,
    resume_command,
    cancel_command,
)
