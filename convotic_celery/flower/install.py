"""Adds our pages to Flower. A Flower that has changed works without them, and says so."""

from __future__ import annotations

import logging
import sys

__all__ = ["install"]

logger = logging.getLogger(__name__)

_MARK = "_convotic_pages"


def install() -> None:
    """Add the pages to the Flower that is loaded in this process. Idempotent; raises nothing."""
    urls = sys.modules.get("flower.urls")
    if urls is None or hasattr(urls, _MARK):
        return
    setattr(urls, _MARK, True)
    try:
        _install()
    except Exception as error:  # noqa: BLE001 - another Flower: it must work without us
        logger.warning(
            "This version of Flower has no tab for dead letters (%s: %s); use `convotic dlq`",
            type(error).__name__,
            error,
            extra={"action": "flower_changed"},
        )


def _install() -> None:
    from flower import urls  # type: ignore[import-untyped]  # noqa: PLC0415 - only where Flower is loaded
    from flower.views import BaseHandler  # type: ignore[import-untyped]  # noqa: PLC0415 - as above

    from convotic_celery.flower.actions import Act  # noqa: PLC0415 - as above
    from convotic_celery.flower.loader import FlowerLoader  # noqa: PLC0415 - as above
    from convotic_celery.flower.pages import Export, ShowJob, ShowList, ShowOne  # noqa: PLC0415
    from convotic_celery.flower.tasks import ShowTask, know_handlers  # noqa: PLC0415

    pages = [
        urls.url(r"/dead-letters", ShowList, name="dead-letters"),
        urls.url(r"/dead-letters/export", Export, name="dead-letters-export"),
        urls.url(r"/dead-letters/job/(\w+)", ShowJob, name="dead-letters-job"),
        urls.url(r"/dead-letters/show/(\w+)", ShowOne, name="dead-letter"),
        urls.url(r"/dead-letters/act/(\w+)", Act, name="dead-letters-act"),
        urls.url(r"/task/([0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f-]+)", ShowTask),
    ]
    loader = FlowerLoader(urls.settings["template_path"])  # reads Flower's templates once: a test
    BaseHandler.create_template_loader = lambda _handler, _path: loader
    urls.handlers[:0] = pages
    know_handlers()
