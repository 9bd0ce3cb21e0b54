"""``convotic publish``: one message on a topic, by hand."""

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
def command(topic: str, data: str, attributes: tuple[str, ...], ordering_key: str) -> None:
    """Publish JSON to TOPIC and print the message's id once the server has confirmed it."""
    try:
        payload = json.loads(data)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="JSON") from None
    pairs = dict(_split(attribute) for attribute in attributes)
    from convotic_celery.app import create_app
    from convotic_celery.context import SyncPubsub
    from convotic_celery.settings import Settings

    settings = Settings()
    app = create_app(settings)
    try:
        pubsub = SyncPubsub(app.publisher, timeout_seconds=settings.publish_timeout, trace={})
        click.echo(pubsub.publish(topic, data=payload, attributes=pairs, ordering_key=ordering_key))
    finally:
        app.close()


def _split(attribute: str) -> tuple[str, str]:
    key, separator, value = attribute.partition("=")
    if not separator:
        raise click.BadParameter(f"{attribute!r} is not KEY=VALUE", param_hint="--attribute")
    return key, value
