"""``convotic publish``: Publish messages to a topic."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from convotic_celery.cli.options import DURATION, TOPIC, examples, json_option, open_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convotic_celery.context import SyncPubsub

__all__ = ["command"]

#: Lines that are published together.
_BATCH = 1000
#: Names of files that have one message a line.
_LINE_SUFFIXES = {".jsonl", ".ndjson"}


@click.command(
    "publish",
    epilog=examples(
        "convotic publish custom.orders.new '{\"id\": 1}'",
        "convotic publish custom.orders.new @order.json -a source=shop",
        "convotic publish custom.orders.remind '{\"id\": 1}' --delay 1h30m",
        "convotic publish custom.orders.new @orders.jsonl",
        "jq -c '.[]' orders.json | convotic publish custom.orders.new - --lines",
    ),
)
@click.argument("topic", type=TOPIC)
@click.argument("data", required=False)
@click.option(
    "--attribute",
    "-a",
    "attributes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Attribute of each message. Repeatable.",
)
@click.option("--ordering-key", default="", help="Keep messages of this key in order.")
@click.option(
    "--delay",
    type=DURATION,
    help="Have a worker publish it after this time: 90 (seconds), 5m, 1h, 2d.",
)
@click.option(
    "--lines",
    is_flag=True,
    help="Each line is the JSON of one message; implied by @FILE.jsonl and @FILE.ndjson.",
)
@json_option
def command(  # noqa: PLR0917 - click gives each option by name
    topic: str,
    data: str | None,
    attributes: tuple[str, ...],
    ordering_key: str,
    delay: float | None,
    lines: bool,
    as_json: bool,
) -> None:
    """Publish DATA to TOPIC and print each message's id once the server has confirmed it.

    DATA is JSON, @FILE, or - for standard input; a message with attributes needs none. With
    --delay the ids are schedule ids: `convotic scheduled cancel ID` cancels a message.
    """
    pairs = dict(_split(attribute) for attribute in attributes)
    message = {"attributes": pairs, "ordering_key": ordering_key}
    if data is None and not pairs:
        raise click.UsageError("Nothing to publish: pass DATA (JSON, @FILE or -) or --attribute.")
    if data is not None and (lines or _is_lines_file(data)):
        ids = _publish_lines(topic, data, message, delay, as_json=as_json)
    else:
        if data is not None:
            message["data"] = _parse(_read(data), "")
        with open_app() as app:
            pubsub = app.services.sync_pubsub()
            ids = [pubsub.publish(topic, message, delay=delay)]
        if not as_json:
            click.echo(ids[0])
    if as_json:
        click.echo(json.dumps({"topic": topic, "scheduled": delay is not None, "ids": ids}))


def _publish_lines(
    topic: str, source: str, message: dict[str, Any], delay: float | None, *, as_json: bool
) -> list[str]:
    """Publish each line; an invalid one ends it, after those before it are published."""
    from convotic_celery.cli.line_batches import read_batches

    ids: list[str] = []
    with _open(source) as file, open_app() as app:
        pubsub = app.services.sync_pubsub()
        app.connect_publisher()
        began = time.monotonic()
        for batch in read_batches(file, _BATCH):
            messages, fault = _parse_batch(batch, message)
            published = _publish_batch(pubsub, topic, messages, delay)
            ids += published
            if not as_json:
                click.echo("".join(f"{each}\n" for each in published), nl=False)
            _show_progress(len(ids))
            if fault:
                raise click.ClickException(f"{fault}. The {len(ids):,} before it are published.")
    seconds = max(0.001, time.monotonic() - began)
    verb = "Scheduled" if delay is not None else "Published"
    click.echo(
        f"{verb} {len(ids):,} messages in {seconds:.1f} s ({len(ids) / seconds:,.0f} a second).",
        err=True,
    )
    return ids


def _parse_batch(
    batch: Sequence[tuple[int, str]], message: dict[str, Any]
) -> tuple[list[tuple[int, dict[str, Any]]], str]:
    """Return the messages up to the first invalid line, each with its line, and that fault."""
    messages: list[tuple[int, dict[str, Any]]] = []
    for number, line in batch:
        try:
            data = _parse(line, f"line {number}: ")
        except click.BadParameter as error:
            return messages, error.message
        messages.append((number, {**message, "data": data}))
    return messages, ""


def _publish_batch(
    pubsub: SyncPubsub,
    topic: str,
    messages: Sequence[tuple[int, dict[str, Any]]],
    delay: float | None,
) -> list[str]:
    from convotic_celery.errors import PublishManyFailed

    if not messages:
        return []
    try:
        return pubsub.publish_many(topic, [each for _, each in messages], delay=delay)
    except PublishManyFailed as error:
        again = [str(messages[position][0]) for position in error.unpublished]
        raise click.ClickException(
            f"{error} Publish these lines again: {', '.join(again[:20])}"
            f"{f' and {len(again) - 20} more' if len(again) > 20 else ''}."  # noqa: PLR2004 - as above
        ) from None


def _show_progress(count: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{count:,} so far \r", nl=False, err=True)


def _is_lines_file(data: str) -> bool:
    return data.startswith("@") and Path(data[1:]).suffix in _LINE_SUFFIXES


def _read(source: str) -> str:
    if source != "-" and not source.startswith("@"):
        return source
    with _open(source) as file:
        return file.read()


def _open(source: str) -> TextIO:
    if source == "-":
        return sys.stdin
    if not source.startswith("@"):
        raise click.UsageError("--lines needs @FILE, or - for standard input.")
    try:
        return Path(source[1:]).open(encoding="utf-8")
    except OSError as error:
        text = f"{source[1:]} can't be read: {error.strerror}"
        raise click.BadParameter(text, param_hint="DATA") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        many = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        hint = "; for one message a line: --lines" if many and not where else ""
        raise click.BadParameter(f"{where}not JSON: {error}{hint}", param_hint="DATA") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _split(attribute: str) -> tuple[str, str]:
    key, separator, value = attribute.partition("=")
    if not separator:
        raise click.BadParameter(f"{attribute!r} is not KEY=VALUE", param_hint="--attribute")
    return key, value
