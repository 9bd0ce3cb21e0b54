"""``convotic dashboard``: See handlers, dead letters and workflows in a browser."""

from __future__ import annotations

import click

from convotic_celery.cli.options import examples, host_option, port_option

__all__ = ["command"]


@click.command(
    "dashboard", epilog=examples("convotic dashboard", "convotic dashboard --port 0 --read-only")
)
@host_option(
    "127.0.0.1", " For another one, set CONVOTIC_DASHBOARD_HOSTS to the names that browsers use."
)
@port_option(8100)
@click.option("--read-only", is_flag=True, help="Show everything, change nothing.")
def command(host: str, port: int, read_only: bool) -> int:
    """Show the handlers of all modules in a browser: what waits, what failed, what runs.

    Works with the embedded servers and with the real service. There is no authentication: it
    accepts requests for this machine's own names only, unless CONVOTIC_DASHBOARD_HOSTS has others.
    """
    from contextlib import ExitStack

    from convotic_celery.cli.listening import listen, url_of
    from convotic_celery.dashboard import create_dashboard
    from convotic_celery.log import configure_logging
    from convotic_celery.routes.server import serve_on
    from convotic_celery.settings import Settings
    from convotic_local import prepare_folder
    from convotic_local.announced import announce_page

    settings = Settings(dashboard_read_only=True) if read_only else Settings()
    configure_logging(settings)
    settings.refuse_embedded_where_wrong()
    with ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        url = f"{url_of(listener)}/"
        application = create_dashboard(settings)
        if settings.broker_is_embedded:  # its own small page has a link then
            folder = settings.data_dir.expanduser().resolve()
            prepare_folder(folder)
            stack.enter_context(announce_page(folder, url))
        click.echo(f"Dashboard: {url}  (Ctrl-C ends it)")
        serve_on(listener, application, stop_seconds=2, access_log=False)
    return 0
