"""``convotic publish``: Publish messages to a topic."""

from __future__ import annotations

import json

import click

__all__ = ["command"]


@click.command("publish")
@click.argument("topic")
@click.argument("data", metavar="JSON")
@click.option(
    "--attribute", "-a", "attributes", multiple=True, metavar="KEY=VALUE", help="Repeatable."
)
@click.option("--ordering-key", default="", help="Keep order among messages of this key.")
@click.option(
    "--delay", type=float, metavar="SECONDS", help="Have a worker publish it so much later."
)
def command(
    topic: str, data: str, attributes: tuple[str, ...], ordering_key: str, delay: float | None
) -> None:
    """Publish JSON to TOPIC and print the message's id once the server has confirmed it.

    With --delay it is the schedule id, by which pubsub.cancel takes it back.
    """
    try:
        payload = json.loads(data, parse_constant=_refuse_constant)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="JSON") from None
    pairs = dict(_split(attribute) for attribute in attributes)
    from convotic_celery.app import create_app
    from convotic_celery.settings import Settings

    app = create_app(Settings())
    try:
        published = app.services.sync_pubsub().publish(
            topic, data=payload, attributes=pairs, ordering_key=ordering_key, delay=delay
        )
        click.echo(published)
    finally:
        app.close()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has no {name}")


def _split(attribute: str) -> tuple[str, str]:
    key, separator, value = attribute.partition("=")
    if not separator:
        raise click.BadParameter(f"{attribute!r} is not KEY=VALUE", param_hint="--attribute")
    return key, value
