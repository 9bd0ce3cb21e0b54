"""The plain twins of the services are generated, and current."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from convotic_celery import context
from convotic_celery.context import ConvoticContext, SyncConvoticContext

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "unasync.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unasync_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_generated_files_are_current() -> None:
    """After a change of ``context/_async``, run ``python scripts/unasync.py``."""
    assert load_script().outdated() == {}


@pytest.mark.parametrize("name", ["Contacts", "Conversations", "Messages", "Pubsub", "Storage"])
def test_twins_have_the_same_methods(name: str) -> None:
    """Same names, same parameters; one is awaited and the other is not."""
    asynchronous = getattr(context, f"Async{name}")
    plain = getattr(context, f"Sync{name}")

    for method, function in inspect.getmembers(asynchronous, inspect.isfunction):
        twin = getattr(plain, method)
        if not method.startswith("_"):
            assert inspect.iscoroutinefunction(function)
            assert not inspect.iscoroutinefunction(twin)
            assert list(inspect.signature(function).parameters) == list(
                inspect.signature(twin).parameters
            )


def test_contexts_have_the_same_attributes() -> None:
    """A handler changes from async to plain by removing await."""

    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(ConvoticContext) == public(SyncConvoticContext)
