"""Modules are found, loaded once, and explained when broken."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from convotic_celery import discovery
from convotic_celery.errors import (
    ConfigurationError,
    DuplicateHandler,
    HandlerSignatureError,
    ModuleError,
    ModuleNotFound,
)
from convotic_celery.modules import load_modules
from convotic_celery.settings import Settings

HANDLER = """
from convotic_celery import ConvoticModule

module = ConvoticModule(name="{name}", version="1.0.0")

@module.worker("custom.{topic}", {options})
async def handle(message, ctx):
    pass
"""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file.resolve()


def write_module(path: str, name: str, topic: str = "a", options: str = "") -> Path:
    return write(path, HANDLER.format(name=name, topic=topic, options=options))


def queues(**settings: Any) -> list[str]:
    return [
        handler.queue
        for module in load_modules(Settings(**settings))
        for handler in module.handlers
    ]


def test_packages_and_files_of_the_folder_are_loaded() -> None:
    """By name, and hidden ones are not."""
    write_module("modules/m_two.py", "two")
    write_module("modules/m_one/handler.py", "one")
    write("modules/m_one/__init__.py", "from .handler import module\n")
    write("modules/_draft.py", "raise RuntimeError")
    write("modules/notes.txt", "")

    assert queues() == ["custom.a.one", "custom.a.two"]


def test_no_folder_is_no_module() -> None:
    """An empty project loads nothing and complains about nothing."""
    assert queues() == []


def test_loading_twice_gives_the_same() -> None:
    """Python imports each module once; handlers are not doubled."""
    write_module("modules/m_one.py", "one")

    assert queues() == queues() == ["custom.a.one"]


def test_named_modules_are_the_only_ones() -> None:
    """With CONVOTIC_MODULES the folder is not searched, but its names can be used."""
    write_module("modules/m_one.py", "one")
    write_module("modules/m_two.py", "two")
    write_module("m_three/workers.py", "three")

    assert queues(modules=["m_two", "m_three.workers:module"]) == ["custom.a.two", "custom.a.three"]


def test_module_object_may_have_any_name() -> None:
    """``module`` wins, then ``default``, then the only one there is."""
    write(
        "modules/m_one.py",
        "from convotic_celery import ConvoticModule\n"
        "orders = ConvoticModule(name='orders', version='1')\n"
        "orders.worker('custom.a')(lambda message, ctx: None)\n",
    )

    assert queues() == ["custom.a.orders"]


def test_two_unnamed_modules_in_a_file_are_refused() -> None:
    """It is not guessed which one is meant."""
    write(
        "modules/m_one.py",
        "from convotic_celery import ConvoticModule\n"
        "a = ConvoticModule(name='a', version='1')\nb = ConvoticModule(name='b', version='1')\n",
    )

    with pytest.raises(ModuleError, match=r"m_one\.py: it has 2 ConvoticModules"):
        queues()


def test_package_without_module_is_skipped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A helper may be in the folder; a forgotten import is reported."""
    write("modules/m_helper.py", "x = 1\n")
    write("modules/m_folder/handler.py", "x = 1\n")

    assert queues() == []
    assert "m_helper has no ConvoticModule" in caplog.text
    assert "needs an __init__.py" in caplog.text


def test_register_function_is_called() -> None:
    """The seed's form works as the decorator does."""
    write(
        "modules/m_one.py",
        "from convotic_celery import ConvoticModule\n"
        "def register(sdk):\n"
        "    sdk.register_worker_handler(topic='custom.a', handler=lambda message, ctx: None,\n"
        "                                options={'maxRetries': 3})\n"
        "module = ConvoticModule('one', '1', register)\n",
    )

    (loaded,) = load_modules(Settings())

    assert loaded.handlers[0].options.max_retries == 3


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("import m_nothing_such\n", 1, "ModuleNotFoundError: No module named 'm_nothing_such'"),
        ("\nx = (\n", 2, "SyntaxError"),
        ("x = 1\n\n1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        (
            "from convotic_celery import ConvoticModule\nmodule = ConvoticModule('a.b', '1')\n",
            2,
            "module name 'a.b' is not valid",
        ),
        (
            """from convotic_celery import ConvoticModule
def register(sdk):
    1 / 0
module = ConvoticModule('one', '1', register)
""",
            3,
            "ZeroDivisionError",
        ),
    ],
)
def test_broken_module_names_file_line_and_cause(text: str, line: int, cause: str) -> None:
    """One error, with the module's own line, chained to what was raised."""
    file = write("modules/m_broken.py", text)

    with pytest.raises(ModuleError) as broken:
        queues()

    assert str(broken.value).startswith(f"{file}:{line}: ")
    assert cause in str(broken.value)
    assert broken.value.__cause__ is not None


def test_error_deep_in_a_package_names_the_deepest_own_line() -> None:
    """Not the __init__ that imported the file, nor the library that raised."""
    write("modules/m_one/__init__.py", "from m_one import handler\n")
    file = write("modules/m_one/handler.py", "import json\n\njson.loads('{')\n")

    with pytest.raises(ModuleError) as broken:
        queues()

    assert str(broken.value).startswith(f"{file}:3: JSONDecodeError")


def test_wrong_signature_keeps_its_type() -> None:
    """The caller can tell a signature error, and the text names the line once."""
    file = write_module("modules/m_one.py", "one")
    file.write_text(file.read_text().replace("(message, ctx)", "(message)"))

    with pytest.raises(HandlerSignatureError) as broken:
        queues()

    assert str(broken.value).count(str(file)) == 1


def test_missing_module_is_told_from_a_missing_import() -> None:
    """A name in the settings that does not exist is ModuleNotFound."""
    with pytest.raises(ModuleNotFound, match="m_nowhere: there is no Python module 'm_nowhere'"):
        queues(modules=["m_nowhere"])


def test_named_attribute_must_be_a_module() -> None:
    """``pkg:attribute`` says which object is meant."""
    write_module("modules/m_one.py", "one")

    with pytest.raises(ModuleError, match="m_one has no ConvoticModule named 'handle'"):
        queues(modules=["m_one:handle"])


def test_name_of_the_standard_library_is_refused() -> None:
    """modules/email.py would break Python's own email."""
    write_module("modules/email.py", "mail")

    with pytest.raises(ModuleError, match=r"'email' belongs to Python's own library"):
        queues()


def test_name_that_is_already_imported_is_refused() -> None:
    """modules/pytest.py would silently be another pytest."""
    write_module("modules/pytest.py", "mine")

    with pytest.raises(ModuleError, match=r"'pytest' is already imported from"):
        queues()


def test_folder_wins_over_an_installed_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkout's module runs instead of the wheel's, and that is said."""
    write_module("site/m_one.py", "installed")
    file = write_module("modules/m_one.py", "mine")
    monkeypatch.syspath_prepend(tmp_path / "site")

    assert queues() == ["custom.a.mine"]
    assert f"{file} is used instead of the installed {tmp_path}/site/m_one.py" in caplog.text


@pytest.mark.parametrize("name", ["requests", "celery"])
def test_a_module_that_would_hide_a_package_is_refused(name: str) -> None:
    """By every command alike, whether the package is imported already or not."""
    write_module(f"modules/{name}.py", "mine")

    with pytest.raises(ModuleError, match=rf"{name}\.py: '{name}' is .*; rename"):
        queues()


def test_copy_that_stands_before_the_folder_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The wrong file is not run silently."""
    write_module("site/m_one.py", "installed")
    write_module("modules/m_one.py", "mine")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "site")

    with pytest.raises(ModuleError, match=r"'m_one' is already imported from .*site"):
        queues()


def test_name_that_is_no_identifier_is_refused() -> None:
    """A file that Python can't import by name is reported, not skipped."""
    write_module("modules/my-orders.py", "orders")

    with pytest.raises(ModuleError, match="'my-orders' can't be imported"):
        queues()


def test_two_modules_of_one_name_are_refused() -> None:
    """Their handlers would share queues."""
    write_module("modules/m_one.py", "orders")
    write_module("modules/m_two.py", "orders", topic="b")

    with pytest.raises(ModuleError, match=r"m_two\.py: .*'orders' is taken by .*m_one\.py"):
        queues()


def test_two_handlers_on_one_subscription_are_refused() -> None:
    """Each would get half of the messages."""
    write_module("modules/m_one.py", "one", options="subscription='shared'")
    write_module("modules/m_two.py", "two", options="subscription='shared'")

    with pytest.raises(DuplicateHandler, match="subscription 'shared' belongs to"):
        queues()


def test_entry_points_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is in the folder and in an entry point is one module."""
    write_module("modules/m_one.py", "one")
    points = [
        EntryPoint("one", "m_one:module", discovery.ENTRY_POINT_GROUP),
        EntryPoint("same", "m_one", discovery.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(
        discovery, "entry_points", lambda group: EntryPoints(points).select(group=group)
    )

    assert queues() == ["custom.a.one"]


def test_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which entry point it was."""
    points = [EntryPoint("crm", "m_nowhere:module", discovery.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(
        discovery, "entry_points", lambda group: EntryPoints(points).select(group=group)
    )

    with pytest.raises(ModuleError, match="entry point crm = m_nowhere:module"):
        queues()


def test_settings_are_below_and_above_the_handlers_options() -> None:
    """Defaults of the settings give way to the code, handler_options win over it."""
    write_module("modules/m_one.py", "one", options="deadline_grace=3, ack_deadline=60")
    write_module("modules/m_two.py", "two")
    settings = Settings(
        deadline_grace=20,
        max_worker_losses=2,
        handler_options={
            "custom.a": {"ackDeadline": 10, "concurrency": 50},
            "custom.a.two": {"ack_deadline": 12},
        },
    )

    one, two = (module.handlers[0].options for module in load_modules(settings))

    assert (one.deadline_grace, two.deadline_grace) == (3, 20)
    assert (one.max_worker_losses, two.max_worker_losses) == (2, 2)
    assert (one.ack_deadline, two.ack_deadline) == (10, 12)
    assert (one.concurrency, one.max_waiting_retries) == (50, 500)


def test_overriding_options_of_no_handler_is_an_error() -> None:
    """A misspelt topic is reported, with a suggestion."""
    write_module("modules/m_one.py", "one", topic="orders.new")

    with pytest.raises(ConfigurationError, match=r"'custom.order.new'.*'custom.orders.new'\?"):
        queues(handler_options={"custom.order.new": {"ack_deadline": 10}})


def test_wrong_overriding_option_is_an_error() -> None:
    """Name and rule are in the text."""
    write_module("modules/m_one.py", "one")

    with pytest.raises(ConfigurationError, match=r"custom\.a\.one: ack_deadline .*86400"):
        queues(handler_options={"custom.a": {"ack_deadline": 100_000}})


def test_sample_module_is_loaded_under_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as editable and in ./modules, it is imported once."""
    import convotic_order_processor  # noqa: PLC0415 - its place decides where to look

    monkeypatch.chdir(Path(convotic_order_processor.__file__).parent.parent.parent)

    (loaded,) = load_modules(
        Settings(modules_dir=Path(convotic_order_processor.__file__).parents[1])
    )

    assert loaded.name == "order-processor"
    assert "modules.convotic_order_processor" not in sys.modules
