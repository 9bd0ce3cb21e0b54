"""CONVOTIC_MIDDLEWARE: around the handlers and routes of all modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from convotic_celery.errors import ConfigurationError, ModuleError
from convotic_celery.modules import load_modules
from convotic_celery.settings import Settings

MIDDLEWARE = """
from convotic_celery import RouteMiddleware, WorkerMiddleware


class Timing(WorkerMiddleware): ...


class Access(RouteMiddleware): ...


class Waiting(WorkerMiddleware):
    async def before(self, message, ctx): ...


access = Access()
"""
MODULE = """
from convotic_celery import ConvoticModule, RouteMiddleware, WorkerMiddleware


class Own(WorkerMiddleware): ...


class OwnAccess(RouteMiddleware): ...


module = ConvoticModule(name="{name}", version="1", middleware=[Own(), OwnAccess()])


@module.worker("orders.new")
{kind} handle(message, ctx): ...


@module.route("GET", "/{name}")
async def show(request, ctx): ...
"""


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A project with two modules."""
    monkeypatch.chdir(tmp_path)
    Path("acme_middleware.py").write_text(MIDDLEWARE)
    Path("modules").mkdir()
    for name, kind in {"acme_one": "async def", "acme_two": "def"}.items():
        source = MODULE.format(name=name, kind=kind)
        Path(f"modules/{name}.py").write_text(source)


def test_it_stands_outside_the_modules_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class or an object, around handlers or routes by its type, in every module."""
    monkeypatch.setenv("CONVOTIC_MIDDLEWARE", "acme_middleware:Timing, acme_middleware:access")

    loaded = load_modules(Settings())

    handlers = [[type(m).__name__ for m in h.middleware] for x in loaded for h in x.handlers]
    routes = [[type(m).__name__ for m in r.middleware] for x in loaded for r in x.routes]
    assert handlers == [["Timing", "Own"]] * 2
    assert routes == [["Access", "OwnAccess"]] * 2


def test_async_hooks_are_refused_where_a_handler_is_plain() -> None:
    """The error names the handler: they would not be awaited there."""
    settings = Settings(middleware=["acme_middleware:Waiting"])

    with pytest.raises(ModuleError, match=r"acme_two\.py:14 is a plain def handler.*is async"):
        load_modules(settings)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme_middleware:Nothing", "is no WorkerMiddleware or RouteMiddleware"),
        ("acme_nowhere:Timing", "there is no Python module 'acme_nowhere'"),
        ("acme_middleware", "must name classes or objects"),
    ],
)
def test_a_wrong_name_is_told(name: str, expected: str) -> None:
    """With the variable and what is wrong."""
    with pytest.raises(ConfigurationError, match=f"CONVOTIC_MIDDLEWARE.*{expected}"):
        load_modules(Settings(middleware=[name]))
