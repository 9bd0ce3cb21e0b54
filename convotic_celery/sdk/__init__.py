"""What a module's author imports: registration, options, messages and outcomes."""

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
