"""Envelopes that no Celery sends: each is dead-lettered or runs, and takes nothing from others."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import zlib
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from convotic_pubsub.outgoing import OutgoingMessage
from tests.integration.celery.conftest import second_app
from tests.support.pubsub import pull, unique
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.integration.celery.conftest import Plain


_HEADERS = (
    *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "retries", "eta"),
    *("expires", "timelimit", "argsrepr", "kwargsrepr", "origin", "ignore_result", "shadow"),
    *("stamped_headers", "stamps", "replaced_task_nesting", "meth", "delivery_info"),
    "compression",
)
_PROPERTIES = (
    *("correlation_id", "reply_to", "priority", "delivery_mode", "delivery_info"),
    "body_encoding",
)
_EMBEDDED = ["callbacks", "errbacks", "chain", "chord"]
_VALUES: tuple[Any, ...] = (
    5, -1, 10**40, 1.5, True, "x", "", [], [1], ["a", 2], {}, {"a": 1}, {"task": "plain.add"}, [[]],
    "9999-12-31T23:59:59Z",
)  # fmt: skip


def envelope(
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    embedded: dict[str, Any] | None = None,
    **changes: Any,
) -> bytes:
    """Return what would be ``plain.add(1, 2)``, but for the changes."""
    identity = unique("malformed")
    message = {
        "body": json.dumps([[1, 2], {}, embedded or {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": "plain.add", "id": identity, **(headers or {})},
        "properties": {"correlation_id": identity, "delivery_info": {}, **(properties or {})},
    }
    return json.dumps({**message, **changes}).encode()


def malformed() -> list[bytes]:
    """Return one envelope for each field and each value that does not belong there."""
    made = [envelope({name: value}) for name, value in product(_HEADERS, _VALUES)]
    made += [envelope(None, {name: value}) for name, value in product(_PROPERTIES, _VALUES)]
    made += [envelope(None, None, {name: value}) for name, value in product(_EMBEDDED, _VALUES)]
    bodies = ["", "x", "5", "[]", "[[],{}]", "[5,{},{}]", "[[],5,{}]", "[[],{},5]", '{"a":1}', None]
    made += [envelope(body=body) for body in (*bodies, 5, {"a": 1})]
    for name, value in product(("content-type", "content-encoding"), ("x", "binary", 5)):
        changes: dict[str, Any] = {name: value}
        made.append(envelope(**changes))
    return made


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_malformed_envelope_takes_no_slot(plain: Plain, pool: str) -> None:
    """After hundreds of them good tasks run, in each slot of the pool."""
    with plain.worker(f"malformed-{pool}", "-P", pool):
        session = plain.session
        futures = [
            session.publish(OutgoingMessage(f"{plain.prefix}celery", m)) for m in malformed()
        ]
        for future in futures:
            future.result(PATIENCE)
        good = [plain.send("add", 1, number) for number in range(10)]

        assert [result.get(timeout=PATIENCE) for result in good] == list(range(1, 11))
        wait_until(lambda: not list(pull(session, f"{plain.prefix}celery")))


def test_what_does_not_run_is_dead_lettered_with_the_reason(plain: Plain) -> None:
    """Bombs, also behind a small stream, are not expanded; a good compressed task runs."""
    large, small = bytes(150_000_000), b"[[1, 2], {}, {}]"
    bodies = {
        "gzip": zlib.compress(large),
        "bz2": bz2.compress(small) + bz2.compress(large),
        "lzma": lzma.compress(small)[:-20],
    }
    with second_app(plain) as app, app.worker("reasons", "-P", "threads"):
        session = app.session
        for name, body in bodies.items():
            message = envelope(
                {"compression": f"application/x-{name}"},
                {"body_encoding": "base64"},
                body=base64.b64encode(body).decode(),
            )
            session.publish(OutgoingMessage(f"{app.prefix}celery", message)).result(PATIENCE)
        app.send("nope")
        good = app.send("add", 1, 2, compression="gzip")

        assert good.get(timeout=PATIENCE) == 3
        errors = wait_for_errors(app, 4)

    bomb = "expands to more than 100,000,000 bytes; it is not decompressed"
    assert errors == [
        f"the body is compressed (application/x-bz2) and {bomb}",
        f"the body is compressed (application/x-gzip) and {bomb}",
        "the body is not what it says, application/x-lzma: it ends too early",
        "the worker has no task 'plain.nope'",
    ]


def wait_for_errors(app: Plain, count: int) -> list[str]:
    """Wait for so many dead letters; return their errors' texts in order, "" for one without."""
    seen: dict[str, str] = {}

    def all_are_there() -> bool:
        for each in pull(app.session, f"{app.prefix}celery.dead-letter"):
            attributes = each.message.attributes  # of a map, which makes what is missing
            name = "convotic-dead-letter-error-message"
            seen[each.message.message_id] = dict(attributes).get(name, "")
        return len(set(seen.values())) >= count  # a slow machine may have one twice

    wait_until(all_are_there, what=f"{count} dead letters")
    return sorted(set(seen.values()))
