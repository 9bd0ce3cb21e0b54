"""``convotic scaling``: Tell KEDA, CREMA or an HPA how many workers are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from convotic_celery.cli.options import examples, host_option, port_option

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from convotic_celery.app import ConvoticApp
    from convotic_celery.telemetry.scaling.reports import Known
    from convotic_celery.telemetry.scaling.scaler import Demand, Scaler

__all__ = ["command"]


@click.command(
    "scaling", epilog=examples("convotic scaling --port 8090", "convotic scaling --once")
)
@host_option("0.0.0.0")  # noqa: S104 - an autoscaler asks from outside
@port_option(8090)
@click.option(
    "--drain-seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds within which a backlog should be processed.",
)
@click.option(
    "--queue",
    "-q",
    "queues",
    multiple=True,
    help="Count only this queue, for workers started with -Q. Repeatable. Default: all.",
)
@click.option("--once", is_flag=True, help="Print what is needed now and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print JSON.")
def command(
    *,
    host: str,
    port: int,
    drain_seconds: float,
    queues: tuple[str, ...],
    once: bool,
    as_json: bool,
) -> int:
    """Serve the number of workers that are needed, even while none runs.

    Workers with CONVOTIC_HEALTH_PORT report to the store; the broker knows what waits in Pub/Sub.
    KEDA's and CREMA's Prometheus scaler queries /api/v1/query, Prometheus itself /metrics. There is
    no authentication: keep the port private.
    """
    from convotic_celery.app import create_app
    from convotic_celery.log import configure_logging
    from convotic_celery.settings import Settings

    settings = Settings()
    settings.refuse_embedded_where_wrong()
    if not once:
        configure_logging(settings)
    scaler = make_scaler(create_app(settings), drain_seconds=drain_seconds, only=queues)
    if once:
        _print(scaler.look(), as_json=as_json)
        return 0
    return _serve(scaler, host, port)


def make_scaler(app: ConvoticApp, *, drain_seconds: float, only: Iterable[str] = ()) -> Scaler:
    """Return the scaler of an app's queues, or of some of them.

    Raises:
        BadParameter: There is no such queue.
    """
    from convotic_celery.telemetry.scaling.scaler import Queue, Scaler

    options = app.transport_options()
    known = {name: Queue(name, s.subscription, s.concurrency) for name, s in options.queues.items()}
    default = app.conf.task_default_queue
    known.setdefault(
        default, Queue(default, f"{app.settings.prefix}{default}", app.total_concurrency)
    )
    unknown = sorted(set(only) - known.keys())
    if unknown:
        raise click.BadParameter(
            f"there is no queue {', '.join(unknown)}; `convotic handlers` lists them",
            param_hint="--queue",
        )
    queues = [queue for name, queue in known.items() if not only or name in only]
    return Scaler(
        queues,
        lambda: app.open_session().resources,
        _AppStore(app),
        drain_seconds=drain_seconds,
    )


class _AppStore:
    """What an app's store knows."""

    def __init__(self, app: ConvoticApp) -> None:
        from convotic_celery.telemetry.scaling.reports import Reports

        self._app = app
        self._reports = Reports(app.store, key_prefix=app.settings.store_prefix)

    def read_reports(self) -> Known:
        return self._reports.read()

    def read_paused(self) -> set[str]:
        return self._app.pauses.read()

    def next_due(self) -> datetime | None:
        return self._app.services.sync_schedule.next_due()


def _serve(scaler: Scaler, host: str, port: int) -> int:
    import signal
    import threading

    from convotic_celery.cli.listening import cant_listen, url_for
    from convotic_celery.telemetry.scaling.answers import ScalingSource
    from convotic_celery.telemetry.server import TelemetryServer

    try:
        server = TelemetryServer(ScalingSource(scaler), host=host, port=port)
    except OSError as error:
        raise cant_listen(host, port, error) from None
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    scaler.start()
    server.start()
    click.echo(f"Needed workers: {url_for(host, server.port)}/  (Ctrl-C ends it)")
    ended.wait()
    server.stop()
    return 0


def _print(demand: Demand, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from convotic_celery.cli.columns import align

    if as_json:
        click.echo(json.dumps(asdict(demand), indent=2))
        return
    rows = [
        (
            name,
            str(each.needed),
            f"{each.waiting:.0f}",
            f"{each.busy:.1f}",
            "?" if each.run_seconds is None else f"{each.run_seconds:.3g} s",
            str(each.workers),
        )
        for name, each in sorted(demand.handlers.items())
    ]
    click.echo(align(("queue", "needed", "waiting", "busy", "a run takes", "workers"), rows))
    click.echo(f"\nWorkers needed: {demand.needed}. Reporting: {demand.workers}.")
