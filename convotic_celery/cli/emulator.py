"""``convotic emulator``: Run, show or stop the embedded servers."""

from __future__ import annotations

from pathlib import Path

import click

from convotic_celery.cli.group import GuessingGroup
from convotic_celery.cli.options import examples, json_option, port_option

__all__ = ["command"]


@click.group(
    "emulator",
    cls=GuessingGroup,
    invoke_without_command=True,
    epilog=examples(
        "convotic emulator --port 8085",
        "convotic emulator --resources pubsub.yaml",
        "convotic emulator status",
    ),
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data. Default: CONVOTIC_DATA_DIR, else .convotic.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@port_option(8085)
@click.option(
    "--resources",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="YAML file of topics and subscriptions to create or update.",
)
@click.option(
    "--push-host",
    multiple=True,
    metavar="NAME",
    help="Host, other than this machine, to which subscriptions may push. Repeatable.",
)
@click.option("--fsync", is_flag=True, help="Survive power loss too, not only killed processes.")
@click.pass_context
def command(  # noqa: PLR0917  # click gives each option by name
    context: click.Context,
    data_dir: Path | None,
    host: str,
    port: int,
    resources: Path | None,
    push_host: tuple[str, ...],
    fsync: bool,
) -> None:
    """Run the Pub/Sub emulator in the foreground, for any client that reads PUBSUB_EMULATOR_HOST.

    A worker without settings doesn't need this: it starts emulator and store itself, in the
    background. `status` and `stop` are about both.
    """
    context.obj = data_dir or _default_data_dir()
    if context.invoked_subcommand is None:
        from convotic_emulator.__main__ import main

        click.echo(
            f"Data in {context.obj.resolve()}; Ctrl-C ends it. Set this variable for clients:",
            err=True,
        )
        arguments = ["--data-dir", str(context.obj), "--host", host, "--port", str(port)]
        if resources is not None:
            arguments += ["--resources", str(resources)]
        for name in push_host:
            arguments += ["--push-host", name]
        context.exit(main([*arguments, "--fsync"] if fsync else arguments))


@command.command("status", epilog=examples("convotic emulator status --json"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def show_status(data_dir: Path, as_json: bool) -> None:
    """Show what runs for the data folder. Starts nothing; exit code 3 if nothing runs."""
    import json
    from dataclasses import asdict

    from convotic_celery.embedded import store
    from convotic_emulator import daemon

    emulator = daemon.status(data_dir)
    valkey = store.status(data_dir)
    if as_json:
        running = {
            "emulator": emulator,
            "store": None if valkey is None else asdict(valkey),
        }
        click.echo(json.dumps(running, indent=2))
    else:
        click.echo(f"data folder  {data_dir.resolve()}")
        if emulator is None:
            click.echo("emulator     not running")
        else:
            click.echo(f"emulator     {emulator['address']} (process {emulator['pid']})")
            if "page" in emulator:
                click.echo(f"page         {emulator['page']}")
        if valkey is None:
            click.echo("store        not running")
        else:
            memory = valkey.used_memory_bytes / 2**20
            click.echo(
                f"store        unix://{valkey.socket} (process {valkey.server_pid}, "
                f"{valkey.clients} clients, {memory:.1f} MiB)"
            )
    if emulator is None and valkey is None:
        raise SystemExit(3)


@command.command(
    "stop",
    short_help="Stop the data folder's emulator and store.",
    epilog=examples("convotic emulator stop"),
)
@json_option
@click.pass_obj
def stop(data_dir: Path, as_json: bool) -> None:
    """Stop the data folder's emulator and store; their data stays on disk."""
    import json

    from convotic_celery.embedded import store
    from convotic_emulator import daemon

    ended = {"emulator": daemon.stop(data_dir), "store": store.stop(data_dir)}
    if as_json:
        click.echo(json.dumps(ended))
        return
    for name, has_ended in ended.items():
        click.echo(f"{name}: {'stopped' if has_ended else 'was not running'}")


def _default_data_dir() -> Path:
    from convotic_celery.settings import Settings

    return Settings().data_dir
