"""The proof: a real worker dead-letters a message that fails, and a replay runs it.

It has a topic of its own, ``convotic.doctor.TIME-TOKEN``, which is deleted afterwards; what a
killed doctor has left is deleted by one that runs more than an hour later.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Final, TypeVar

from convotic_celery.app import ConvoticApp
from convotic_celery.dead_letters import Match
from convotic_celery.doctor.finding import Finding
from convotic_celery.doctor.probe_module import NAME, TOPIC_PREFIX, make_module
from convotic_celery.errors import ConvoticError
from convotic_pubsub.errors import AccessDenied, PubsubTransportError

if TYPE_CHECKING:
    from convotic_celery.settings import Settings
    from convotic_celery.topology.values import Actual
    from convotic_pubsub.client.admin import Admin

__all__ = ["check_probe", "left_probes"]

_LEFT_AFTER_SECONDS: Final = 3600.0
_POLL_SECONDS: Final = 0.1
_SKEW_SECONDS: Final = 5.0
_TAIL: Final = 400

T = TypeVar("T")


class _ProbeFailed(Exception):
    """A step failed or took too long."""


def check_probe(settings: Settings, actual: Actual, timeout_seconds: float) -> Iterator[Finding]:
    """Send a message through a failing handler, its dead-letter topic and a replay.

    Args:
        settings: of this process, but with ``provision`` ``create`` and no modules.
        actual: what exists, for what earlier doctors have left.
        timeout_seconds: for each step.
    """
    token = f"{int(time.time())}-{secrets.token_hex(3)}"
    app = ConvoticApp(settings, make_module(token).collect_handlers(), set_as_current=False)
    try:
        probe = _Probe(app, token, timeout_seconds)
        try:
            yield from probe.run()
        except AccessDenied as error:
            yield Finding(
                "probe",
                "warning",
                f"dead-lettering and replay could not be tested: {error}",
                "run the doctor with roles/pubsub.editor on the project, or with --no-probe",
            )
        except (_ProbeFailed, ConvoticError, PubsubTransportError) as error:
            yield Finding(
                "probe",
                "error",
                f"dead-lettering and replay do not work: {error}",
                "see the other findings, or run CONVOTIC_LOG_LEVEL=DEBUG convotic doctor",
            )
        finally:
            probe.clean_up(left_probes(actual, time.time()))
    finally:
        app.close()


def left_probes(actual: Actual, now: float) -> list[str]:
    """Return the topics and subscriptions of probes that were killed. Pure."""
    return [
        name
        for name in (*actual.subscriptions, *actual.topics)
        if (began := _began(name)) is not None and now - began > _LEFT_AFTER_SECONDS
    ]


def _began(path: str) -> int | None:
    """Return when a probe began, by the name of what it made, in seconds since 1970."""
    _, found, rest = path.rpartition("/")[2].partition(TOPIC_PREFIX)
    seconds = rest.partition("-")[0]
    return int(seconds) if found and seconds.isdecimal() else None


class _Probe:
    def __init__(self, app: ConvoticApp, token: str, timeout_seconds: float) -> None:
        self._app = app
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._definition = app.definitions[0]
        self._storage = app.services.sync_storage(NAME)
        self._worker: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def run(self) -> Iterator[Finding]:
        """Run all steps."""
        queue = self._definition.queue
        session = self._app.open_session()
        session.resources.ensure(session.spec(queue))
        self._start_worker()
        began = time.time()
        message_id = self._app.services.sync_pubsub().publish(
            self._definition.topic, data={"probe": self._token}
        )
        match = Match(handler=queue)
        dead = self._wait_for(
            lambda: next(iter(self._app.dead_letters.list(match).items), None),
            "the failing message was not dead-lettered",
        )
        dead_lettered = time.time()
        job = self._app.dead_letters.replay(match, by="convotic doctor")
        if job.done != 1:
            raise _ProbeFailed(f"a replay took {job.done} messages instead of one")
        seen = self._wait_for(
            lambda: self._storage.get(self._token), "the replayed message was not processed"
        )
        if seen != message_id:
            raise _ProbeFailed(f"message.id was {message_id}, and {seen} after the replay")
        yield Finding(
            "probe",
            "ok",
            f"a message that fails was dead-lettered after {dead_lettered - began:.1f} s, listed, "
            f"replayed and processed under its id after {time.time() - began:.1f} s",
        )
        if dead.published_at is not None:
            yield from _judge_clock(dead.published_at.timestamp(), began, dead_lettered)

    def _start_worker(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  it is read while the worker runs
        self._worker = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "convotic_celery.doctor.probe_module", self._token],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def _wait_for(self, find: Callable[[], T | None], failure: str) -> T:
        ends_at = time.monotonic() + self._timeout_seconds
        while time.monotonic() < ends_at:
            found = find()
            if found is not None:
                return found
            assert self._worker is not None
            if self._worker.poll() is not None:
                failure = f"the probe's worker ended with {self._worker.returncode}"
                break
            threading.Event().wait(_POLL_SECONDS)
        else:
            failure = f"{failure} within {self._timeout_seconds:g} s"
        raise _ProbeFailed(f"{failure}. Its worker printed: {self._read_log()}")

    def _read_log(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        text = " ".join(self._log.read().decode(errors="replace").split())
        return text[-_TAIL:] or "nothing"

    def clean_up(self, left: Iterable[str]) -> None:
        """End the worker, and delete what this probe has made and what earlier ones have left."""
        if self._worker is not None and self._worker.poll() is None:
            self._worker.terminate()
            try:
                self._worker.wait(self._timeout_seconds)
            except subprocess.TimeoutExpired:
                self._worker.kill()
        if self._log is not None:
            self._log.close()
        try:
            admin = self._app.open_session().admin
            spec = self._app.open_session().spec(self._definition.queue)
            project = f"projects/{self._app.transport_options().project}"
            names = [spec.subscription, spec.dead_letter_topic, spec.topic]
            _delete(admin, [f"{project}/subscriptions/{name}" for name in names[:2]])
            _delete(admin, [f"{project}/topics/{name}" for name in names[1:]])
            _delete(admin, left)
            self._storage.delete(self._token)
        except (ConvoticError, PubsubTransportError):
            return  # the next doctor deletes it


def _delete(admin: Admin, names: Iterable[str]) -> None:
    for name in names:
        if "/subscriptions/" in name:
            admin.delete_subscription(name)
        else:
            admin.delete_topic(name)


def _judge_clock(theirs: float, before: float, after: float) -> Iterator[Finding]:
    """Compare Pub/Sub's clock with this machine's."""
    skew = theirs - min(max(theirs, before), after)
    if abs(skew) > _SKEW_SECONDS:
        yield Finding(
            "clock",
            "warning",
            f"Pub/Sub's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this "
            "machine's: ages of messages are wrong, and max_message_age with them",
            "synchronise the clock (chrony, systemd-timesyncd)",
        )
