"""``convotic routes``: Serve the modules' routes over HTTP."""

from __future__ import annotations

import click

from convotic_celery.cli.columns import align
from convotic_celery.cli.options import examples, host_option, port_option

__all__ = ["command"]


@click.command(
    "routes", epilog=examples("convotic routes --port 8000", "convotic routes --list --json")
)
@host_option("127.0.0.1")
@port_option(8000)
@click.option("--list", "only_list", is_flag=True, help="List the routes and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --list: print JSON.")
@click.option(
    "--openapi", "only_document", is_flag=True, help="Print the OpenAPI document and exit."
)
def command(host: str, port: int, only_list: bool, as_json: bool, only_document: bool) -> None:
    """Serve the routes of all modules; /docs lists them and lets you try them.

    There is no authentication: keep the address private, or put a gateway in front.
    """
    from convotic_celery.settings import Settings

    settings = Settings()
    if only_list or only_document:
        _print(settings, as_document=only_document, as_json=as_json)
        return
    from convotic_celery.cli.listening import listen, url_of
    from convotic_celery.embedded import broker_address
    from convotic_celery.log import configure_logging
    from convotic_celery.routes import create_asgi_app
    from convotic_celery.routes.server import serve_on

    configure_logging(settings)
    settings.refuse_embedded_where_wrong()
    with listen(host, port) as listener:
        if settings.broker_is_embedded:
            broker_address(settings)  # here what is wrong is one line, in the server a traceback
        serve_on(
            listener,
            create_asgi_app(settings),
            on_ready=lambda: click.echo(f"Routes: {url_of(listener)}/docs  (Ctrl-C ends it)"),
        )


def _print(settings: object, *, as_document: bool, as_json: bool) -> None:
    import json

    from convotic_celery.modules import load_modules
    from convotic_celery.settings import Settings

    assert isinstance(settings, Settings)
    routes = [route for module in load_modules(settings) for route in module.routes]
    if as_document:
        from convotic_celery.routes.application import build_openapi

        click.echo(json.dumps(build_openapi(routes), indent=2))
    elif as_json:
        names = ("method", "path", "module", "source")
        click.echo(json.dumps([{n: getattr(route, n) for n in names} for route in routes]))
    elif not routes:
        click.echo("No routes. Register one: @module.route('POST', '/orders').", err=True)
    else:
        rows = [(route.method, route.path, route.module, route.source) for route in routes]
        click.echo(align(("method", "path", "module", "defined at"), rows))
