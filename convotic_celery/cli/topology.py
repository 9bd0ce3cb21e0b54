"""``convotic topology``: Create and change what the modules need in Pub/Sub."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from convotic_celery.cli.group import GuessingGroup
from convotic_celery.cli.options import examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from convotic_celery.topology.plan import Plan
    from convotic_pubsub.client.backlog_size import BacklogSize
    from convotic_pubsub.session import Session

__all__ = ["command"]

#: As Terraform's -detailed-exitcode has it.
EXIT_CHANGES = 2

_project_number = click.option(
    "--project-number",
    default="",
    metavar="NUMBER",
    help="Number of the project (gcloud projects describe PROJECT "
    "--format='value(projectNumber)'). Adds the bindings that Pub/Sub's own dead-lettering needs.",
)


@click.group(
    "topology",
    cls=GuessingGroup,
    epilog=examples("convotic topology plan", "convotic topology apply --yes"),
)
def command() -> None:
    """Topics, subscriptions and bindings: what the loaded modules need, and what exists."""


@command.command("plan", epilog=examples("convotic topology plan --json"))
@_project_number
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(project_number: str, as_json: bool) -> int:
    """Show what apply would change. Exit code 0: nothing, 2: something, 1: an error."""
    with _session() as session:
        found, backlogs, notes = _make_plan(session, project_number)
        if as_json:
            _print_json(found, backlogs, notes, session)
        else:
            _print_plan(found, backlogs, notes, session)
            if found.steps:
                click.echo("\nApply with: convotic topology apply")
    return EXIT_CHANGES if found.steps or found.problems else 0


@command.command(
    "apply",
    epilog=examples(
        "convotic topology apply", "convotic topology apply --yes --delete custom.orders.old.shop"
    ),
)
@_project_number
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option(
    "--delete",
    "to_delete",
    multiple=True,
    metavar="NAME",
    help="Delete this orphan too, with its messages. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; needs --yes.")
def apply(project_number: str, yes: bool, to_delete: tuple[str, ...], as_json: bool) -> int:
    """Show the changes, ask, and make them.

    Only what --delete names is deleted. A subscription whose filter or ordering differs is
    replaced step by step, without losing a message. Several deploys may run this at once.
    """
    from convotic_celery.topology.apply import apply_steps, delete_orphans
    from convotic_celery.topology.text import shorten_names

    if as_json and not yes:
        raise click.UsageError("--json needs --yes: there is nobody to ask.")
    with _session() as session:
        found, backlogs, notes = _make_plan(session, project_number)
        orphans = _chosen(found, to_delete)
        if as_json:
            _print_json(found, backlogs, notes, session)
        else:
            _print_plan(found, backlogs, notes, session)
        if not found.steps and not orphans:
            return 1 if found.problems else 0
        if not yes and not _is_agreed(len(found.steps), len(orphans)):
            click.echo("Nothing was changed.", err=True)
            return 1

        def say(text: str) -> None:
            if not as_json:
                click.echo(shorten_names(text, session.options.project))

        apply_steps(session.admin, found.steps, say)
        delete_orphans(session.admin, orphans, say)
    return 1 if found.problems else 0


@command.group(
    "export",
    cls=GuessingGroup,
    epilog=examples("convotic topology export terraform > pubsub.tf"),
)
def export() -> None:
    """Write the topology for other tools."""


@export.command("terraform", epilog=examples("convotic topology export terraform > pubsub.tf"))
def terraform() -> None:
    """Print the topology as Terraform's HCL. Contacts nothing.

    Subscriptions and topics are protected from being destroyed by accident. The bindings that
    dead-lettering needs are included, and with worker_service_account the workers' least rights.
    """
    from convotic_celery.topology.desired import make_desired
    from convotic_celery.topology.rights import CONTROL_PERMISSIONS
    from convotic_celery.topology.terraform import make_terraform

    with _errors_of_settings():
        app = _make_app()
    options = app.transport_options()
    click.echo(
        make_terraform(make_desired(options), control_permissions=CONTROL_PERMISSIONS), nl=False
    )


@contextmanager
def _errors_of_settings() -> Iterator[None]:
    """Give wrong settings and modules exit code 1: 2 says that there are changes."""
    from convotic_celery.errors import ConfigurationError, ModuleError

    try:
        yield
    except (ConfigurationError, ModuleError) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _session() -> Iterator[Session]:
    with _errors_of_settings():
        app = _make_app()
    try:
        yield app.open_session()
    finally:
        app.close()


def _make_app() -> Any:
    from convotic_celery.app import create_app
    from convotic_celery.settings import Settings

    return create_app(Settings())


def _make_plan(
    session: Session, project_number: str
) -> tuple[Plan, Mapping[str, BacklogSize], list[str]]:
    from convotic_celery.topology.actual import read_actual, read_backlogs
    from convotic_celery.topology.desired import make_desired
    from convotic_celery.topology.plan import make_plan

    desired = make_desired(session.options, project_number=project_number)
    actual = read_actual(session, desired)
    found = make_plan(desired, actual)
    names = [each.name for each in found.orphans if each.kind == "subscription"]
    notes = []
    if not actual.is_complete:
        notes.append(
            "Orphans are not known: listing topics and subscriptions needs roles/pubsub.viewer on "
            "the project."
        )
    if not project_number and not actual.is_emulated:
        notes.append(
            "The bindings that Pub/Sub's own dead-lettering needs are left out: --project-number "
            "adds them."
        )
    return found, read_backlogs(session, names), notes


def _print_plan(
    found: Plan, backlogs: Mapping[str, BacklogSize], notes: list[str], session: Session
) -> None:
    from convotic_celery.topology.text import format_plan

    click.echo(f"Project {session.options.project} at {session.broker.address}\n")
    text = format_plan(found, backlogs, session.options.project)
    if text:
        click.echo(text)
    if not found.steps and not found.problems:
        click.echo("Everything is as the modules need it.")
    for note in notes:
        click.echo(f"\n{note}")


def _print_json(
    found: Plan, backlogs: Mapping[str, BacklogSize], notes: list[str], session: Session
) -> None:
    from convotic_celery.topology.text import describe_plan

    described = describe_plan(found, backlogs)
    click.echo(
        json.dumps({"project": session.options.project, **described, "notes": notes}, indent=2)
    )


def _chosen(found: Plan, names: tuple[str, ...]) -> list[Any]:
    """Return the orphans to delete; raises BadParameter for anything else."""
    chosen = []
    for name in names:
        matching = [o for o in found.orphans if name in (o.name, o.name.rpartition("/")[2])]
        if not matching:
            raise click.BadParameter(
                f"{name!r} is not an orphan; `convotic topology plan` lists them.",
                param_hint="--delete",
            )
        chosen += [each for each in matching if each not in chosen]
    return chosen


def _is_agreed(changes: int, deletions: int) -> bool:
    if not sys.stdin.isatty():
        click.echo("There is nobody to ask: pass --yes to apply it.", err=True)
        return False
    what = f"{changes} change{'' if changes == 1 else 's'}"
    if deletions:
        what += f" and {deletions} deletion{'' if deletions == 1 else 's'}"
    return click.confirm(f"\nApply {what}?")
