"""Documents say what the code says, and pages escape what they show."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from pydantic import BaseModel, Field

from convotic_celery import ConvoticModule, RouteRequest, RouteResponse, WorkerMessage
from convotic_celery.documents.asyncapi import build_asyncapi
from convotic_celery.documents.page import render_asyncapi
from convotic_celery.documents.schemas import build_schema
from convotic_celery.errors import InvalidMessage
from convotic_celery.routes.application import build_openapi
from convotic_celery.sdk.event import read_event
from convotic_order_processor import module as order_processor


class Line(BaseModel):
    sku: str = Field(description="<b>what</b> is bought")


class Order(BaseModel):
    """One order."""

    id: int
    lines: list[Line] = []


class Odd:
    """Something that JSON Schema can't say."""


def references(value: Any) -> set[str]:
    """All ``$ref``s of a document."""
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def resolve(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def make_module() -> ConvoticModule:
    module = ConvoticModule(name="shop", version="1.2")

    @module.worker("custom.orders.new", max_retries=3)
    async def process(message: WorkerMessage[Order], ctx: Any) -> None:
        """Process <script>alert(1)</script>.

        In <i>two</i> paragraphs.
        """

    @module.worker("custom.orders.new", name="audit")
    async def audit(message: WorkerMessage[Order], ctx: Any) -> None: ...

    @module.worker("custom.orders.events", cloud_events="require", accept_gzip=True)
    async def on_event(message: WorkerMessage[Order], ctx: Any) -> None: ...

    @module.worker("custom.any~thing")
    async def anything(message: WorkerMessage, ctx: Any) -> None: ...

    @module.route("POST", "/orders", status=202)
    async def create(request: RouteRequest[Order], ctx: Any) -> Order:
        """Create <script>alert(1)</script>."""
        raise NotImplementedError

    @module.route("GET", "/orders/{order_id}")
    async def show(request: RouteRequest, ctx: Any) -> RouteResponse[list[Line]]:
        raise NotImplementedError

    @module.route("PUT", "/files/{rest:path}")
    async def upload(request: RouteRequest[bytes], ctx: Any) -> dict[str, Any]:
        raise NotImplementedError

    return module


def test_asyncapi_has_channel_operation_and_payload() -> None:
    """Of each handler; a topic that two listen to is one channel."""
    document = build_asyncapi(make_module().collect_handlers())

    assert document["asyncapi"] == "3.0.0"
    operation = document["operations"]["custom.orders.new.shop"]
    assert operation["action"] == "receive"
    assert operation["x-convotic"]["options"]["max_retries"] == 3
    assert resolve(document, operation["channel"]["$ref"])["address"] == "custom.orders.new"
    message = resolve(document, resolve(document, operation["messages"][0]["$ref"])["$ref"])
    assert message["payload"] == {"$ref": "#/components/schemas/Order"}
    assert set(document["channels"]["custom.orders.new"]["messages"]) == {
        "custom.orders.new.shop",
        "custom.orders.new.shop.audit",
    }
    dead = document["operations"]["custom.orders.new.shop.dead-letter"]
    assert dead["action"] == "send"
    assert document["channels"]["custom.any_thing"]["address"] == "custom.any~thing"


def test_asyncapi_has_both_forms_of_a_cloud_event() -> None:
    """Attributes beside the payload, or the whole event around it; and what may be compressed."""
    document = build_asyncapi(make_module().collect_handlers())

    operation = document["operations"]["custom.orders.events.shop"]
    binary, structured = (
        resolve(document, resolve(document, message["$ref"])["$ref"])
        for message in operation["messages"]
    )
    order = {"$ref": "#/components/schemas/Order"}
    assert (binary["contentType"], binary["payload"]) == ("application/json", order)
    assert binary["headers"]["required"] == ["ce-specversion", "ce-id", "ce-source", "ce-type"]
    assert binary["headers"]["properties"]["content-encoding"] == {"enum": ["gzip"]}
    assert structured["contentType"] == "application/cloudevents+json"
    assert structured["payload"]["properties"]["data"] == order
    assert structured["payload"]["required"] == ["specversion", "id", "source", "type"]
    assert "application/cloudevents+json" in render_asyncapi(document)
    plain = document["components"]["messages"]["custom.orders.new.shop"]
    assert "properties" not in plain["headers"]


@pytest.mark.parametrize("member", ["specversion", "id", "source", "type"])
def test_the_document_asks_of_an_event_what_the_handler_asks(member: str) -> None:
    """Without a member that the document requires the event is invalid."""
    document = build_asyncapi(make_module().collect_handlers())
    message = document["components"]["messages"]["custom.orders.events.shop.structured-event"]
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "t", "data": {"id": 1}}
    attributes = {"content-type": message["contentType"]}
    assert read_event(json.dumps(event).encode(), attributes, "require")[0]
    del event[member]

    assert member in message["payload"]["required"]
    with pytest.raises(InvalidMessage):
        read_event(json.dumps(event).encode(), attributes, "require")


def test_references_lead_somewhere() -> None:
    """In both documents; and they are JSON."""
    sdk = make_module().collect()

    for document in (build_asyncapi(sdk.handlers), build_openapi(sdk.routes)):
        for reference in references(document):
            assert isinstance(resolve(document, reference), dict)
        assert json.loads(json.dumps(document)) == document


def test_openapi_has_body_answer_and_problems() -> None:
    """Types come from annotations, texts from docstrings, the status from the route."""
    document = build_openapi(make_module().collect().routes)

    create = document["paths"]["/orders"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Order"
    }
    assert create["responses"]["202"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Order"
    }
    assert {"400", "413", "415", "422", "500", "503"} < set(create["responses"])
    show = document["paths"]["/orders/{order_id}"]["get"]
    assert [parameter["name"] for parameter in show["parameters"]] == ["order_id"]
    assert "requestBody" not in show
    assert show["responses"]["200"]["content"]["application/json"]["schema"]["type"] == "array"
    upload = document["paths"]["/files/{rest}"]["put"]
    assert list(upload["requestBody"]["content"]) == ["application/octet-stream"]
    assert "2XX" in upload["responses"]


def test_type_without_schema_is_anything() -> None:
    """One odd type does not keep the others from being documented."""
    assert build_schema(None) == {}
    assert build_schema(Odd) == {}
    assert build_schema(int) == {"type": "integer"}


def test_the_page_escapes_and_needs_nothing_else() -> None:
    """Names and docstrings are text; nothing is loaded, nothing runs."""
    page = render_asyncapi(build_asyncapi(make_module().collect().handlers))

    check = _Checker()
    check.feed(page)
    check.close()
    assert check.tags.isdisjoint({"script", "link", "img", "iframe", "i", "b"})
    assert check.open == []
    assert check.loaded == []
    assert check.links <= check.anchors
    assert "&lt;script&gt;" in page


def test_empty_document_has_a_page() -> None:
    """A folder without modules."""
    assert "There are none" in render_asyncapi(build_asyncapi([]))
    assert build_openapi([])["paths"] == {}


def test_one_odd_type_leaves_the_others_documented() -> None:
    """A type without JSON Schema is any JSON in the OpenAPI document."""
    module = make_module()

    @module.route("GET", "/odd")
    async def odd(request: RouteRequest, ctx: Any) -> Odd:
        raise NotImplementedError

    document = build_openapi(module.collect().routes)

    assert "content" in document["paths"]["/odd"]["get"]["responses"]["2XX"]
    assert "Order" in document["components"]["schemas"]


def test_sample_module_is_documented() -> None:
    """Its Order, with limits."""
    sdk = order_processor.collect()

    page = render_asyncapi(build_asyncapi(sdk.handlers))

    assert "customer_id" in page
    assert "maxLength: 500" in page
    assert "Order queued" in json.dumps(build_openapi(sdk.routes))


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.links: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.anchors.add(f"#{value}")
            if name == "href":
                self.links.add(str(value))
            if name == "src" or (name == "href" and not str(value).startswith("#")):
                self.loaded.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_routes_description_is_its_authors() -> None:
    """One line is its summary, and nothing of ours stands below it."""
    module = ConvoticModule(name="shop", version="1")

    @module.route("GET", "/orders")
    async def read(request: RouteRequest[None], ctx: object) -> None:
        """Return all orders."""

    @module.route("GET", "/nothing")
    async def say_nothing(request: RouteRequest[None], ctx: object) -> None: ...

    paths = build_openapi(module.collect().routes)["paths"]

    assert paths["/orders"]["get"]["summary"] == "Return all orders."
    assert not paths["/orders"]["get"].get("description")
    assert not paths["/nothing"]["get"].get("description")
