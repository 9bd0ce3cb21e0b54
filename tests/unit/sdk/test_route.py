"""Routes are checked when they are registered."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from convotic_celery import ConvoticModule, Problem, RouteRequest, Sdk
from convotic_celery.errors import DuplicateRoute, HandlerSignatureError, ModuleError
from convotic_celery.modules import load_modules
from convotic_celery.settings import Settings


async def answer(request: RouteRequest, ctx: Any) -> None:
    """Say something.

    At length.
    """


def register(path: str = "/orders", method: str = "POST", **options: Any) -> Sdk:
    sdk = Sdk("shop", "1")
    sdk.register_route(method=method, path=path, handler=answer, **options)
    return sdk


@pytest.mark.parametrize(
    "path",
    ["/", "/orders", "/orders/{id}", "/a/{b}/c", "/a/{rest:path}", "/{rest:path}", "/v1.0/~x"],
)
def test_path_is_taken(path: str) -> None:
    """Parts are text or a parameter."""
    (route,) = register(path, "post").routes

    assert route.name == f"POST {path}"
    assert (route.summary, route.description) == ("Say something.", "At length.")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "orders",
        "/orders/",
        "//",
        "/a b",
        "/{a}{b}",
        "/{1}",
        "/{rest:path}/x",
        "/{id:int}",
        "/{a}/{a}",
        "/docs",
        "/openapi.json",
        "/a?b=1",
    ],
)
def test_wrong_path_is_refused(path: str) -> None:
    """With file, line and rule."""
    with pytest.raises(ModuleError, match=r"test_route.py:\d+: route POST"):
        register(path)


def test_wrong_method_or_status_is_refused() -> None:
    """OPTIONS and HEAD are the server's."""
    with pytest.raises(ModuleError, match="GET, POST, PUT, PATCH, DELETE"):
        register(method="OPTIONS")
    with pytest.raises(ModuleError, match="raise Problem"):
        register(status=404)


def test_same_shape_is_a_duplicate() -> None:
    """Parameters' names don't tell two routes apart; methods do."""
    sdk = register("/orders/{id}")
    sdk.register_route(method="GET", path="/orders/{id}", handler=answer)

    with pytest.raises(DuplicateRoute, match=r"already has POST /orders/\{id\}"):
        sdk.register_route(method="POST", path="/orders/{order_id}", handler=answer)


def test_wrong_signature_is_refused() -> None:
    """As for workers: the text says request, not message."""

    async def takes_message(request: int, ctx: Any) -> None: ...
    async def takes_one(request: RouteRequest) -> None: ...

    sdk = Sdk("shop", "1")
    with pytest.raises(HandlerSignatureError, match=r"Annotate it RouteRequest\[\.\.\.\]"):
        sdk.register_route(method="GET", path="/", handler=takes_message)  # type: ignore[arg-type]  # the test's point
    with pytest.raises(HandlerSignatureError, match=r"handler\(request, ctx\)"):
        sdk.register_route(method="GET", path="/", handler=takes_one)  # type: ignore[arg-type]  # the test's point


def test_module_with_routes_alone_is_a_module(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No warning; its routes are loaded, and two modules can't have one route."""
    text = (
        "from convotic_celery import ConvoticModule\n"
        "module = ConvoticModule(name={name!r}, version='1')\n"
        "@module.route('GET', '/hello')\n"
        "async def hello(request, ctx): return 'hello'\n"
    )
    (tmp_path / "route_module_a.py").write_text(text.format(name="a"))

    (loaded,) = load_modules(Settings(modules_dir=tmp_path))
    assert [route.name for route in loaded.routes] == ["GET /hello"]
    assert caplog.records == []

    (tmp_path / "route_module_b.py").write_text(text.format(name="b"))
    with pytest.raises(DuplicateRoute, match=r"module b.*GET /hello.*module a"):
        load_modules(Settings(modules_dir=tmp_path))


def test_register_function_adds_routes() -> None:
    """The seed's form, beside decorated ones."""

    def register(sdk: Sdk) -> None:
        sdk.register_route(method="POST", path="/orders", handler=answer)

    module = ConvoticModule(name="shop", version="1", register=register)
    module.route("GET", "/orders")(answer)

    assert [route.name for route in module.collect().routes] == ["GET /orders", "POST /orders"]


def test_problem_is_what_it_says() -> None:
    """Members in order of RFC 9457; no status outside errors."""
    problem = Problem(422, "bad", type="https://example.com/bad", status_text="x")

    assert problem.members() == {
        "status_text": "x",
        "type": "https://example.com/bad",
        "title": HTTP_422,
        "status": 422,
        "detail": "bad",
    }
    assert vars(pickle.loads(pickle.dumps(problem))) == vars(problem)
    assert Problem(499).title == "Error"
    with pytest.raises(ValueError, match="400 to 599"):
        Problem(200)


HTTP_422 = Problem(422).title


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (404, "Not Found"),
        (413, "Content Too Large"),
        (422, "Unprocessable Content"),
        (499, "Error"),
    ],
)
def test_a_problem_s_title_is_that_of_rfc_9110(status: int, title: str) -> None:
    """With every version of Python, whose own phrases are older before 3.13."""
    assert Problem(status).title == title
