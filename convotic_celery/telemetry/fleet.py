"""One port for several workers: asks each on its Unix socket and puts the answers together."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

from convotic_celery.telemetry.server import Answer, json_answer

__all__ = ["FleetSource", "merge_metrics"]

#: A worker that does not answer for so long stands still.
_ANSWER_SECONDS = 2.0
_PATHS = ("/livez", "/readyz", "/metrics")
#: Ends what OpenMetrics says.
_EOF = "# EOF"


class FleetSource:
    """Answers for the workers that listen on these sockets. Thread-safe.

    ``/livez`` fails if one of them stands still; one that does not run (it is started again) makes
    ``/readyz`` fail.
    """

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = sockets
        self._threads = ThreadPoolExecutor(max(4, len(sockets)), thread_name_prefix="fleet")

    def answer(self, path: str, accept: str, query: str = "") -> Answer | None:
        """Answer a path for all workers; None for one that there is not."""
        del query
        if path not in _PATHS:
            return None
        answers = list(self._threads.map(lambda each: _ask(each, path, accept), self._sockets))
        if path == "/metrics":
            found = [
                each
                for each in answers
                if isinstance(each, Answer) and each.status == HTTPStatus.OK
            ]
            if not found:
                return json_answer(503, {"status": "no worker answers"})
            body = merge_metrics(each.body.decode() for each in found)
            return Answer(200, body.encode(), found[0].content_type)
        return _merge_health(path, answers)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("worker", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(path: Path, what: str, accept: str) -> Answer | str:
    """Return a worker's answer, or why there is none."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", what, headers={"Accept": accept})
        response = connection.getresponse()
        return Answer(response.status, response.read(), response.headers["Content-Type"])
    except TimeoutError:
        return "unresponsive"
    except (OSError, http.client.HTTPException):  # it ended while it answered
        return "not running"
    finally:
        connection.close()


def _merge_health(path: str, answers: Sequence[Answer | str]) -> Answer:
    is_readiness = path == "/readyz"
    findings: list[dict[str, Any]] = []
    is_stalled = False
    for number, answer in enumerate(answers, 1):
        worker = {"worker": number}
        if isinstance(answer, Answer):
            found = json.loads(answer.body)
            is_stalled = is_stalled or found["status"] == "stalled"
            findings.extend({**worker, **each} for each in found["findings"])
        elif answer == "unresponsive":
            is_stalled = True
            detail = f"it has not answered within {_ANSWER_SECONDS:g} s"
            findings.append({**worker, "name": "worker-unresponsive", "detail": detail})
        elif is_readiness:
            findings.append({**worker, "name": "starting", "detail": "the worker does not run yet"})
    well = "ready" if is_readiness else "live"
    status = "stalled" if is_stalled else "not ready" if findings else well
    return json_answer(503 if findings else 200, {"status": status, "findings": findings})


def merge_metrics(texts: Iterable[str]) -> str:
    """Return several workers' metrics as one: each family once, with the samples of all.

    Their samples differ in the label ``hostname``.
    """
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    is_openmetrics = False
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line == _EOF:
                is_openmetrics = True
            elif line.startswith("# "):
                name = line.split(" ", 3)[2]
                if name != family:
                    family = name
                    is_new = family not in headers
                    headers.setdefault(family, [])
                    samples.setdefault(family, [])
                if is_new:
                    headers[family].append(line)
            elif line:
                samples[family].append(line)
    lines = [line for family, found in headers.items() for line in (*found, *samples[family])]
    return "\n".join([*lines, *([_EOF] if is_openmetrics else [])]) + "\n"
