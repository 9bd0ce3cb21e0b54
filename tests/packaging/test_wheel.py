"""The wheel: what it holds, and that it works where nothing else of the repository is."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.packaging.support import run

PACKAGES = {
    "convotic_celery",
    "convotic_pubsub",
    "convotic_emulator",
    "convotic_local",
    "convotic_protos",
    "convotic_order_processor",
}


def test_it_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    """Its top level is the packages; no `tests`, `transports` or `modules` gets installed.

    And the line that Python reads at its start, for `pubsub://`.
    """
    names = zipfile.ZipFile(wheel).namelist()

    top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert top_level == {*PACKAGES, "convotic_pubsub.pth"}


def test_it_says_that_it_is_typed_and_brings_the_orders(wheel: Path) -> None:
    """Each package has its py.typed, and the demo's orders are inside the sample module."""
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.startswith("convotic_order_processor/") and ".jsonl" in name for name in names)


def test_the_command_works_where_only_the_wheel_is(environment: Path, tmp_path: Path) -> None:
    """`convotic --help` lists the commands in a fresh environment."""
    assert "demo" in run(environment, "convotic", "--help", cwd=tmp_path)


def test_kombu_knows_the_transport_whatever_is_imported_first(
    environment: Path, tmp_path: Path
) -> None:
    """A script that imports kombu alone; nothing of ours or of gRPC is loaded for others."""
    script = """
import sys
assert "kombu" not in sys.modules and "typing" not in sys.modules
from kombu import Connection
print(Connection("pubsub://demo").get_transport_cls().driver_type)
"""

    assert run(environment, "python", "-c", script, cwd=tmp_path) == "pubsub\n"


def test_every_module_of_the_wheel_can_be_imported(environment: Path, tmp_path: Path) -> None:
    """No module needs what the wheel does not declare, or imports the repository's paths."""
    script = f"""
import importlib, pkgutil
for package in {sorted(PACKAGES)}:
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, package + "."):
        if not module.name.endswith("__main__") and ".testing" not in module.name:
            importlib.import_module(module.name)
"""

    run(environment, "python", "-W", "error::SyntaxWarning", "-c", script, cwd=tmp_path)


def test_the_transport_is_found_without_our_app(environment: Path, tmp_path: Path) -> None:
    """`pubsub://` is a transport for every Celery process of the environment."""
    script = (
        "import kombu.serialization, kombu; "
        "print(kombu.Connection('pubsub://a-project').get_transport_cls().driver_type)"
    )

    assert run(environment, "python", "-c", script, cwd=tmp_path).strip() == "pubsub"
