"""What a module's author imports: registration, options, messages and outcomes.

=================  ==============================================================================
``module``         :class:`ConvoticModule` and its decorators; ``decorated`` is what they return
``registration``   :class:`Sdk`: what a module registers, as ``handler``, ``route``, ``schedule``
                   and ``workflow``; ``signature`` reads how the author's function is called
``options``        :class:`WorkerOptions`; of these ``backoff``, ``batch``, ``rate``, ``selector``
                   (keys), ``error_types`` (``retry_on``); ``option_errors`` words mistakes
``message``        a handler's first argument; ``payload_type``, ``event`` (CloudEvents),
                   ``compression`` and ``infinite`` (1e400) are how its data is read
``outcomes``       what a handler raises; ``dead_lettered`` is what ``on_dead_letter`` gets
``middleware``     code around handlers and routes; ``lifespan`` around a process
``http``           a route's request and response
=================  ==============================================================================

Pure: nothing here knows Celery, Pub/Sub or the store.
"""

from convotic_celery.names import TARGET_ATTRIBUTE
from convotic_celery.sdk.backoff import Backoff, ConstantBackoff, ExponentialBackoff
from convotic_celery.sdk.batch import BatchFailed, BatchOptions
from convotic_celery.sdk.dead_lettered import DeadLettered
from convotic_celery.sdk.event import CloudEvent
from convotic_celery.sdk.handler import HandlerDefinition
from convotic_celery.sdk.http import Problem, RouteRequest, RouteResponse
from convotic_celery.sdk.lifespan import Lifespan
from convotic_celery.sdk.message import WorkerMessage
from convotic_celery.sdk.middleware import RouteMiddleware, WorkerMiddleware
from convotic_celery.sdk.module import ConvoticModule
from convotic_celery.sdk.options import WorkerOptions, WorkerOptionsDict
from convotic_celery.sdk.outcomes import DeadLetter, Drop, Outcome, Retry
from convotic_celery.sdk.registration import Sdk
from convotic_celery.sdk.route import RouteDefinition

__all__ = [
    "TARGET_ATTRIBUTE",
    "Backoff",
    "BatchFailed",
    "BatchOptions",
    "CloudEvent",
    "ConstantBackoff",
    "ConvoticModule",
    "DeadLetter",
    "DeadLettered",
    "Drop",
    "ExponentialBackoff",
    "HandlerDefinition",
    "Lifespan",
    "Outcome",
    "Problem",
    "Retry",
    "RouteDefinition",
    "RouteMiddleware",
    "RouteRequest",
    "RouteResponse",
    "Sdk",
    "WorkerMessage",
    "WorkerMiddleware",
    "WorkerOptions",
    "WorkerOptionsDict",
]
