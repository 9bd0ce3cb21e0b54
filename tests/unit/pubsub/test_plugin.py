"""How kombu comes to know ``pubsub://``."""

from __future__ import annotations

import subprocess
import sys

import pytest

import convotic_pubsub


@pytest.mark.parametrize(
    "first",
    ["import convotic_pubsub.plugin", "import kombu.transport, convotic_pubsub"],
)
def test_the_scheme_is_known_in_any_order_of_imports(first: str) -> None:
    """Before and after kombu's transports; what Python's start imports (the first) is light."""
    script = f"""
import sys
{first}
if "plugin" in {first!r}:
    assert "kombu" not in sys.modules and "grpc" not in sys.modules
from kombu import Connection
connection = Connection("pubsub://demo")
left = [finder for finder in sys.meta_path if "pubsub" in str(finder)]
print(connection.get_transport_cls().driver_type, len(left))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("pubsub 0\n", "")


@pytest.mark.parametrize("name", convotic_pubsub.__all__)
def test_each_public_name_is_there(name: str) -> None:
    """They are imported when they are asked for."""
    assert getattr(convotic_pubsub, name).__name__ == name
