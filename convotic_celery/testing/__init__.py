"""For tests of modules: :func:`convotic_app` runs a module's handlers in the test's own process.

Decoding, attempts, outcomes, keys, middleware and lifespans are the worker's own code; Pub/Sub is a
list in memory, with a clock that the test moves. The pytest plugin
(``convotic_celery.testing.plugin``) provides the fixture of the same name.

``app`` is :func:`convotic_app`; ``runner`` runs one delivery, ``broker`` is the list, ``clock`` the
clock, ``store`` a real Valkey, ``canvas`` runs canvas at once, ``unawaited`` finds forgotten
awaits.
"""

from convotic_celery.testing.app import AppUnderTest, convotic_app
from convotic_celery.testing.broker import DeadLetterSeen, PublishedMessage, RunSeen
from convotic_celery.testing.clock import MovingClock
from convotic_celery.testing.store import shared_store_url

__all__ = [
    "AppUnderTest",
    "DeadLetterSeen",
    "MovingClock",
    "PublishedMessage",
    "RunSeen",
    "convotic_app",
    "shared_store_url",
]
