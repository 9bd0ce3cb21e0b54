"""The nursery of `convotic dev`: what a reload costs is the import of the modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from convotic_celery.cli.dev.programs import PROGRAMS, load
program = PROGRAMS[sys.argv[1]]
program.preload()
before = set(sys.modules)
load(debug=False)
print(len(before), len(set(sys.modules) - before))
"""


@pytest.mark.parametrize("program", ["worker", "routes", "dashboard", "beat"])
def test_what_is_forked_has_imported_what_loading_needs(program: str, tmp_path: Path) -> None:
    """Nearly nothing is left to import but the modules themselves."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, done.stdout.split())

    assert before > 500
    assert after < 30


#: As far as it is used before anybody attaches.
DEBUGPY = """
import socket

listeners = []


def listen(address):
    listeners.append(socket.create_server(address))


def is_client_connected():
    return False
"""

#: Listens for debuggers while another has the port, and then without it.
LISTEN = """
import socket
import threading

from convotic_celery.cli.dev.programs import _allow_debuggers
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, never

port = free_port()
with socket.create_server(("127.0.0.1", port)):
    thread = threading.Thread(target=_allow_debuggers, args=(port,))
    thread.start()
    never(lambda: not thread.is_alive(), for_=0.3)
thread.join(PATIENCE)
with socket.create_connection(("127.0.0.1", port), PATIENCE):
    print("listens")
"""


def test_the_debugger_s_port_is_waited_for(tmp_path: Path) -> None:
    """debugpy's listener is a process of its own, and that of the worker before may not be gone."""
    (tmp_path / "debugpy.py").write_text(DEBUGPY)

    done = subprocess.run(
        [sys.executable, "-c", LISTEN], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.stdout == "listens\n", done.stderr
