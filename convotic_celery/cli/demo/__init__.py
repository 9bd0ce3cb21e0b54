"""``convotic demo``: Send real orders through a real worker, and check the sums."""

from __future__ import annotations

import sys

import click

from convotic_celery.cli.options import examples

__all__ = ["command"]


@click.command("demo", epilog=examples("convotic demo --orders 500", "convotic demo --chaos"))
@click.option("--orders", type=click.IntRange(min=1), help="Publish the first N orders only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the figures as one JSON object at the end."
)
@click.option("--chaos", is_flag=True, help="Kill the worker with SIGKILL four times.")
@click.option("--flower", is_flag=True, help="Run Flower too, and keep it until Ctrl-C.")
@click.option(
    "--dashboard/--no-dashboard",
    default=None,
    help="Show it in the dashboard, and keep that until Ctrl-C. Default: on a terminal.",
)
def command(
    orders: int | None, as_json: bool, chaos: bool, flower: bool, dashboard: bool | None
) -> int:
    """Send 6,919 real orders through a real Celery worker and check the sums.

    Starts the Pub/Sub emulator, a Valkey and a worker with the sample module, in a data folder of
    its own that is removed at the end. A foreign producer (Google's client) publishes plain JSON.
    The figures are read back from store and dead-letter subscription. Exit code 0 only if they are
    what the orders add up to.

    Honours PUBSUB_EMULATOR_HOST, CONVOTIC_BROKER_URL and CONVOTIC_REDIS_URL.
    """
    from convotic_celery.cli.demo.run import DemoOptions, run_demo

    if dashboard is None:
        dashboard = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    return run_demo(
        DemoOptions(orders=orders, as_json=as_json, chaos=chaos, flower=flower, dashboard=dashboard)
    )
