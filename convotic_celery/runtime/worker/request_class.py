"""The request class of one handler: what is the same for all its messages is looked up once.

Celery derives a class for each task (``create_request_cls``), and this derives one more step. It is
made from a raw message, goes to our pool and ends as Celery's does, without what no handler's
message needs: its headers are those of ``delivery/payload.py``, so most of a request's attributes
are the class's. Celery keeps the ids of successful tasks in a sorted set, so that none runs twice
and none that has succeeded is cancelled; our messages are acknowledged before they are called done.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from weakref import ref

from celery.exceptions import TaskRevokedError
from celery.utils.functional import noop
from celery.worker import request, state

from convotic_celery.runtime.celery_internals import find_trace_function, make_request_class
from convotic_celery.runtime.delivery.observing import RunBegan, observers
from convotic_celery.runtime.delivery.payload import as_task_body
from convotic_celery.runtime.pool.pool import TaskPool
from convotic_celery.runtime.worker.request import HandlerRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from convotic_celery.runtime.execution.task import HandlerTask

__all__ = ["request_maker"]

#: Celery's. The second one's line is in the way to the pool that ours is shorter than.
logger, _pool_logger = logging.getLogger(request.__name__), logging.getLogger("celery.pool")


class _BoundRequest(HandlerRequest):
    """A request whose class knows its handler."""

    #: For how long the lease is kept when the run begins.
    _held_seconds: float
    #: Celery's, missing in celery-types.
    _eventer: Any
    _hostname: str
    _message: Any
    _terminate_on_ack: Any

    def __init__(self, message: Any) -> None:
        """Take what Celery's constructor takes out of a raw message's headers."""
        headers, properties = message.headers, message.properties
        info, body = message.delivery_info, as_task_body(message.body)
        self._message = message
        self._body = self._Request__payload = body
        self.id = task_id = headers["id"]
        self._root_id = headers["root_id"]
        self._parent_id = headers["parent_id"]
        self._argsrepr = headers["argsrepr"]
        self._kwargsrepr = headers["kwargsrepr"]
        self._args, self._kwargs, _ = body
        self._delivery_info = {
            "exchange": info["exchange"],
            "routing_key": info["routing_key"],
            "priority": properties["priority"],
            "redelivered": info["redelivered"],
        }
        self._request_dict = {
            **headers,
            "properties": properties,
            "reply_to": properties["reply_to"],
            "correlation_id": task_id,
            "hostname": self._hostname,
            "delivery_info": self._delivery_info,
            "args": self._args,
            "kwargs": self._kwargs,
        }

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Do what HandlerRequest and Celery's Request do."""
        now = time.monotonic()
        self._held_until = now + self._held_seconds
        self._message.started(self._held_seconds)
        self.worker_pid = pid
        self.time_start = started_at = time.time() - (now - time_accepted)
        # As ``state.task_accepted`` does, without a dictionary for each message.
        state.requests[self.id] = self
        state.active_requests.add(self)
        state.total_count[self.name] += 1
        state.all_total_count[0] += 1
        if self._eventer is not None:
            self.send_event("task-started")
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)
        if observers.began:
            observers.report(observers.began, RunBegan(self.observed, started_at))

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> Any:
        """Acknowledge, and report the success, as Celery's does."""
        failed, returned, runtime = failed__retval__runtime
        if failed:
            return super().on_success(failed__retval__runtime, **kwargs)
        self.acknowledge()
        state.task_ready(self)
        if self._eventer is not None:
            self.send_event("task-succeeded", result=returned, runtime=runtime)
        return None


class _FullRequest(_BoundRequest):
    """One that also does what few workers ask for: it logs more, and keeps the id of a success."""

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Say that the run begins, as Celery's does."""
        logger.debug("Task accepted: %s[%s] pid:%r", self.name, self.id, pid)
        super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **kwargs: Any) -> Any:
        """Keep the id for ``worker_deduplicate_successful_tasks``."""
        if not failed__retval__runtime[0]:
            state.successful_requests.add(self.id)
        return super().on_success(failed__retval__runtime, **kwargs)


class _PooledRequest(_BoundRequest):
    """One for our own pool."""

    #: Celery's, as above.
    _already_revoked: bool
    #: What Celery has the pool call, and within which limits.
    _trace: Any
    _soft_limit: float | None
    _hard_limit: float | None

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Give it to the pool, as Celery's does.

        Raises:
            TaskRevokedError: It was revoked.
        """
        task_id = self.id
        if self._already_revoked or (task_id in state.revoked and self.revoked()):
            raise TaskRevokedError(task_id)
        job = pool.on_apply(
            self._trace,
            (self.name, task_id, self._request_dict, self._body, None, None),
            None,
            self.on_success,
            self.on_accepted,
            self.on_failure,
            self.on_timeout,
            self._soft_limit,
            self._hard_limit,
            task_id,
        )
        self._apply_result = ref(job)
        return job


def request_maker(
    task: HandlerTask,
    pool: Any,
    hostname: str,
    eventer: Any,
    connection_errors: tuple[type[BaseException], ...] = (),
) -> Callable[[Any], HandlerRequest]:
    """Return what makes a request of a raw message to a handler, in this worker."""
    made = make_request_class(HandlerRequest, task, pool, hostname, eventer)
    options = task.execution.definition.options
    known = {
        "_definition": task.execution.definition,
        "_held_seconds": options.run_limit + options.deadline_grace,
        # What Celery's constructor gives each request.
        "_app": task.app,
        "_connection_errors": connection_errors,
        "_content_encoding": None,
        "_content_type": None,
        "_decoded": True,
        "_eta": None,
        "_eventer": eventer,
        "_expires": None,
        "_hostname": hostname,
        "_ignore_result": True,
        "_on_ack": staticmethod(noop),
        "_on_reject": staticmethod(noop),
        "_task": task,
        "_type": task.name,
        "_utc": True,
        "name": task.name,
        "time_limits": (None, None),
    }
    bases: tuple[type, ...] = (_BoundRequest, made)
    logs_more = any(each.isEnabledFor(logging.DEBUG) for each in (logger, _pool_logger))
    if logs_more or task.app.conf.worker_deduplicate_successful_tasks:
        bases = (_FullRequest, made)
    elif isinstance(pool, TaskPool):
        bases = (_PooledRequest, made)
        known |= {
            "_trace": staticmethod(find_trace_function(task.app)),
            "_soft_limit": task.soft_time_limit,
            "_hard_limit": task.time_limit,
        }
    bound: type[_BoundRequest] = type(HandlerRequest.__name__, bases, known)
    return bound
