"""``convotic doctor``: Check whether this deployment can run, and say what to fix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from convotic_celery.cli.options import examples

if TYPE_CHECKING:
    from convotic_celery.doctor.finding import Finding

__all__ = ["command"]

_WIDTHS = (7, 15)
_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


@click.command(
    "doctor", epilog=examples("convotic doctor", "convotic doctor --no-probe --strict --json")
)
@click.option(
    "--probe/--no-probe",
    default=True,
    show_default=True,
    help="Send a message through a failing handler, its dead-letter topic and a replay. Makes and "
    "deletes a topic of its own, so it needs roles/pubsub.editor.",
)
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds for each step of the probe.",
)
@click.option("--strict", is_flag=True, help="Exit code 1 for warnings, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(probe: bool, timeout: float, strict: bool, as_json: bool) -> int:
    """Check credentials, topics, subscriptions, rights, store, clocks and versions.

    Exit code 1 if something is wrong; what may go wrong later is a warning. Deletes control
    subscriptions left by killed processes of this host.
    """
    from convotic_celery.doctor.finding import LEVELS, worst
    from convotic_celery.doctor.run import examine
    from convotic_celery.settings import Settings

    findings = []
    for finding in examine(Settings(), probe=probe, timeout_seconds=timeout):
        findings.append(finding)
        if not as_json:
            _show(finding)
    level = worst(findings)
    if as_json:
        described = [
            {"check": f.check, "level": f.level, "text": f.text, "remedy": f.remedy}
            for f in findings
        ]
        click.echo(json.dumps({"level": level, "findings": described}, indent=2))
    else:
        counts = {each: sum(f.level == each for f in findings) for each in ("error", "warning")}
        click.echo(
            "\n" + ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())
        )
    return int(LEVELS.index(level) >= LEVELS.index("warning" if strict else "error"))


def _show(finding: Finding) -> None:
    level = click.style(finding.level.ljust(_WIDTHS[0]), fg=_COLOURS[finding.level])
    click.echo(f"{level}  {finding.check.ljust(_WIDTHS[1])}  {finding.text}")
    if finding.remedy:
        click.echo(f"{' ' * (sum(_WIDTHS) + 4)}To do: {finding.remedy}")
