"""``convotic workflows``: List the runs of workflows, and show one with its steps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from convotic_celery.cli.columns import align, json_text, plain
from convotic_celery.cli.group import GuessingGroup
from convotic_celery.cli.options import examples, json_option, limit_option, open_app, show_duration

if TYPE_CHECKING:
    from convotic_celery.context.workflow_runs import WorkflowStatus

__all__ = ["command"]

_PAGE = 1000


@click.group(
    "workflows",
    cls=GuessingGroup,
    epilog=examples("convotic workflows list --status failed", "convotic workflows show 0199…"),
)
def command() -> None:
    """Runs of workflows. Those that have ended are kept for 30 days."""


@command.command("list", epilog=examples("convotic workflows list fulfil --status failed"))
@click.argument("name", required=False)
@click.option(
    "--status",
    type=click.Choice(["running", "completed", "failed"]),
    help="Only runs in this state.",
)
@limit_option(50, _PAGE)
@json_option
def list_runs(name: str | None, status: WorkflowStatus | None, limit: int, as_json: bool) -> None:
    """List runs, newest first: all, or those of the workflow NAME."""
    with open_app() as app:
        workflows = app.services.sync_workflows(app.services.sync_pubsub())
        page = workflows.list(name, status=status, limit=limit)
    if as_json:
        click.echo(json.dumps([run.model_dump(mode="json") for run in page.items], indent=2))
        return
    if not page.items:
        click.echo("No such run." if name or status else "No workflow has run.")
        return
    now = datetime.now(UTC)
    rows = [
        (run.id, run.name, run.status, str(run.step), run.step_name or "-", _ago(run, now))
        for run in page.items
    ]
    header = ("run", "workflow", "status", "steps done", "last begun", "changed")
    click.echo(align(header, rows))
    if page.next_cursor is not None:
        click.echo(f"The newest {limit}; --limit shows more.", err=True)


@command.command(
    "show",
    epilog=examples(
        "convotic workflows show 0199…", "convotic workflows show 0199… --json | jq .results"
    ),
)
@click.argument("run_id", metavar="RUN")
@json_option
def show(run_id: str, as_json: bool) -> None:
    """Show one run: its state, its input, and what each step returned."""
    with open_app() as app:
        run = app.services.sync_workflows(app.services.sync_pubsub()).get(run_id)
    if as_json:
        click.echo(json_text(run.model_dump(mode="json")))
        return
    facts = [
        ("run", run.id),
        ("workflow", run.name),
        ("status", run.status),
        ("begun", f"{run.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("changed", f"{run.updated_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("input", _show(run.input)),
    ]
    facts += [(f"✓ {name}", _show(result)) for name, result in run.results.items()]
    if run.status != "completed" and run.step_name and run.step_name not in run.results:
        mark = "✗" if run.status == "failed" else "…"
        facts.append((f"{mark} {run.step_name}", run.error or "has begun"))
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        click.echo(f"{name:<{width}}  {plain(text)}")


def _ago(run: Any, now: datetime) -> str:
    return f"{show_duration((now - run.updated_at).total_seconds())} ago"


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
