"""Flower's tab *Dead letters*: pages on ``app.dead_letters``, added to the Flower of this process.

============== =================================================================================
``install``    adds the pages to Flower, before it starts; survives a Flower that has changed
``loader``     Flower's templates with our additions, and our own
``tasks``      the page of a task of a handler that Flower has not seen itself
``parts``      what Flower's templates show of ours
``pages``      what is looked at
``actions``    what is done: POST only, with Flower's authentication and protection
============== =================================================================================

Imported by the app, and only where Flower is loaded.
"""

from __future__ import annotations

from convotic_celery.flower.install import install

__all__ = ["install"]
