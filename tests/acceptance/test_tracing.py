"""Traces of real processes: from a route to the message sent, over retries and delays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from convotic_celery.context.services import Services
from convotic_celery.context.store import Store
from convotic_celery.embedded import store_url
from convotic_celery.settings import Settings
from tests.acceptance.commands import convotic
from tests.acceptance.test_authoring import routes
from tests.support.lines import read_lines
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stage import Stage

DOCUMENT = Path(__file__).parents[2] / "docs" / "tracing.md"

#: A module without handlers: the application's own TracerProvider, which writes spans to a file.
EXPORTER = """
import json
import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from convotic_celery import ConvoticModule

module = ConvoticModule(name="exporter", version="1.0.0")
SPANS = Path(os.environ["CONVOTIC_TEST_RECORD"]).with_name("spans.jsonl")


class ToFile(SpanExporter):
    def export(self, spans):
        with SPANS.open("a") as file:
            for span in spans:
                file.write(json.dumps({
                    "name": span.name,
                    "kind": span.kind.name.lower(),
                    "trace": span.context.trace_id,
                    "id": span.context.span_id,
                    "parent": span.parent.span_id if span.parent else 0,
                    "links": [link.context.span_id for link in span.links],
                    "error": span.attributes.get("error.type", ""),
                    "attributes": dict(span.attributes),
                }) + "\\n")
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
trace.set_tracer_provider(provider)
"""

#: Fails once, then publishes with a delay.
LATER = '''
from convotic_celery import ConstantBackoff, ConvoticModule

module = ConvoticModule(name="later", version="1.0.0")


@module.worker("traced.first", backoff=ConstantBackoff(delay=1), max_retries=2)
async def first(message, ctx):
    if message.attempt == 1:
        raise RuntimeError("not yet")
    await ctx.pubsub.publish("traced.second", data=1, delay=1)


@module.worker("traced.second")
def second(message, ctx):
    """Do nothing."""
'''


#: A handler that fails until a file says that it was mended, and a workflow with a canvas step.
LONGER = '''
import os
from pathlib import Path

from celery import shared_task

from convotic_celery import ConvoticModule

module = ConvoticModule(name="longer", version="1.0.0")
MENDED = Path(os.environ["CONVOTIC_TEST_RECORD"]).with_name("mended")


@module.worker("traced.fails", max_retries=0)
async def fails(message, ctx):
    if not MENDED.exists():
        raise RuntimeError("out of order")
    await ctx.workflows.start("traced-flow", {"id": 1}, run_id="one")


@shared_task(name="traced.double")
def double(value):
    return 2 * value["n"]


def first(run, ctx):
    return {"n": 21}


def last(run, ctx):
    ctx.pubsub.publish("traced.done", data=run.result("double"))


@module.worker("traced.done")
def done(message, ctx):
    """Do nothing."""


module.workflow("traced-flow", steps=[first, double, last])
'''


class NoPublisher:
    """Nothing is published by the test itself."""

    def publish(self, message: Any, *, sending: Any = "batched") -> Any:  # noqa: ARG002 - as the real one
        raise AssertionError(message)


@pytest.fixture
def traced_stage(embedded_stage: Stage) -> Stage:
    """A stage whose processes write their spans to a file."""
    modules = embedded_stage.folder / "modules"
    (modules / "a_exporter.py").write_text(EXPORTER)
    (modules / "later.py").write_text(LATER)
    embedded_stage.environment |= {"CONVOTIC_TRACING": "true"}
    return embedded_stage


def read_spans(stage: Stage) -> list[dict[str, Any]]:
    """Return the spans that have ended, in order."""
    return [json.loads(line) for line in read_lines(stage.folder / "spans.jsonl")]


def find(stage: Stage, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait for spans of a name."""
    return (
        wait_until(
            lambda: (
                found
                if len(found := [s for s in read_spans(stage) if s["name"] == name]) >= count
                else None
            ),
            what=f"{count} spans {name}",
        )
        or []
    )


def test_the_trace_of_an_order_is_the_documents(traced_stage: Stage) -> None:
    """From the route over the handler to the announcement of the message sent, in one trace."""
    stage = traced_stage
    (stage.folder / "modules" / "shop.py").write_text(
        "from convotic_order_processor import module\n"
    )
    settings = Settings(data_dir=stage.data_dir)
    store = Store(store_url(settings))
    services = Services(store, NoPublisher())
    contact = services.sync_contacts.create(external_id="c-1", first_name="Ada")
    services.sync_conversations.create(contact.id)
    store.close()  # else the garbage collector warns of its socket, in any other test
    with stage.worker(), routes(stage) as client:
        client.post("/orders", json={"id": "1", "customer_id": "c-1"}).raise_for_status()
        (last,) = find(stage, "send messages.sent")
        find(stage, "process custom.orders.new")

    spans = {span["id"]: span for span in read_spans(stage) if span["trace"] == last["trace"]}
    documented = re.findall(
        r"^\| `(.+?)` \| (\w+) \| (?:`(.+?)`|none) \|", DOCUMENT.read_text(), re.MULTILINE
    )
    found = [
        (s["name"], s["kind"], spans.get(s["parent"], {}).get("name", "")) for s in spans.values()
    ]
    assert sorted(found) == sorted(documented)
    process = next(span for span in spans.values() if span["name"].startswith("process"))
    assert process["links"] == [process["parent"]]
    assert process["attributes"]["messaging.system"] == "gcp_pubsub"


def test_retries_and_delays_stay_in_the_trace(traced_stage: Stage) -> None:
    """Both runs are linked to the one publish; the delayed message's run to the second run."""
    stage = traced_stage
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with stage.worker():
        stage.publish_json(1, topic="traced.first", googclient_traceparent=context)
        one, two = find(stage, "process traced.first", 2)
        (send,) = find(stage, "send traced.second")
        (last,) = find(stage, "process traced.second")

    assert {each["trace"] for each in (one, two, send, last)} == {int(context[3:35], 16)}
    origin = int(context[36:52], 16)
    assert [one["parent"], two["parent"]] == [origin, origin]
    assert one["links"] == two["links"] == [origin]
    assert (one["error"], two["error"]) == ("RuntimeError", "")
    assert send["parent"] == two["id"]
    assert (last["parent"], last["links"]) == (send["id"], [send["id"]])


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_replays_and_workflows_stay_in_the_trace(traced_stage: Stage, pool: str) -> None:
    """A failure, its replay, three steps and what the last one publishes; also from children."""
    stage = traced_stage
    (stage.folder / "modules" / "longer.py").write_text(LONGER)
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    arguments = [] if pool == "asyncio" else ["-P", pool, "-c", "2"]
    with stage.worker(*arguments):
        stage.publish_json(1, topic="traced.fails", traceparent=context)
        find(stage, "process traced.fails")
        (stage.folder / "mended").touch()
        handler = "traced.fails.longer"
        chosen = ("--handler", handler)
        wait_until(lambda: handler in convotic(stage, "dlq", "list", *chosen, "--json").stdout)
        assert convotic(stage, "dlq", "replay", *chosen).returncode == 0
        failed, replayed = find(stage, "process traced.fails", 2)
        (done,) = find(stage, "process traced.done")
        steps = find(stage, "process workflow.traced-flow", 2)
        (task,) = find(stage, "process traced.double")
    spans = {span["id"]: span for span in read_spans(stage)}

    assert {s["trace"] for s in (failed, replayed, done, task, *steps)} == {int(context[3:35], 16)}
    assert (failed["error"], replayed["error"]) == ("RuntimeError", "")
    assert failed["attributes"]["convotic.replay"] is False
    assert replayed["attributes"]["convotic.replay"] is True
    assert failed["links"] == [failed["parent"]] == [int(context[36:52], 16)]
    ancestors, each = [], done
    while each := spans.get(each["parent"], {}):
        ancestors.append(each["name"])
    assert ancestors[0] == "send traced.done"
    assert "process traced.double" in ancestors
    assert ancestors[-2:] == ["process traced.fails", "send traced.fails"]  # the replay's
