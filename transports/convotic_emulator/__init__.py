"""An embedded Google Cloud Pub/Sub server: ``google.pubsub.v1`` over gRPC, data in SQLite.

Start one a data folder with :mod:`convotic_emulator.daemon`, in the foreground with
``python -m convotic_emulator`` (``process``), in a test with ``testing``'s fixture, or in process
with :class:`convotic_emulator.server.EmulatorServer`. ``errors`` are what it answers when it
refuses; the rooms are in docs/emulator.md. It knows neither kombu nor Celery.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
