"""What runs in the processes of ``convotic dev``: a nursery, and the programs that it forks.

Run as ``python -m convotic_celery.cli.dev.child FD``. It imports what the programs need but nothing
of the user's, then forks a process for each order. So a reload costs only the import of the
modules, however soon after the last one. It has one thread, because it forks.

FD is a socket: an order is one JSON object a message, with file descriptors; reports are one JSON
object a line. The nursery ends when its parent does, in whatever way.

===============  ==================================================================
order            ``program``, and the ``names`` of the file descriptors
report           ``forked`` and ``ended``, with ``pid`` and ``code``
===============  ==================================================================

A program has a socket of its own, ``control``:

===============  ==================================================================
order            :class:`Orders`, to load the modules; then ``{}``, to run
report           ``loaded`` with facts, or ``failed`` with a text; ``ready``;
                 ``stopping``
===============  ==================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convotic_celery.cli.dev.control import Control, Orders

if TYPE_CHECKING:
    from convotic_celery.cli.dev.programs import Loaded

__all__ = ["Nursery", "main"]

_MAX_ORDER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Forked:
    """What a forked process should run."""

    program: str
    #: ``control``, and perhaps ``output`` and ``listener``.
    files: dict[str, int] = field(default_factory=dict)


def main(fd: int) -> int:
    """Run the nursery, and in each process that it forks its program; return the exit code."""
    from convotic_celery.cli.dev.programs import PROGRAMS

    nursery = Nursery(fd)
    for program in PROGRAMS.values():  # the worker's first: a start waits for it alone
        program.preload()
        if forked := nursery.serve(waits=False):
            return _run(forked)
    forked = nursery.serve()
    return _run(forked) if forked else 0


class Nursery:
    """Forks a process for each order, and reports its end."""

    def __init__(self, fd: int) -> None:
        self._parent = socket.socket(fileno=fd)
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # else none wakes us
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def serve(self, *, waits: bool = True) -> Forked | None:
        """Return in a forked process with its order; else when the parent has ended.

        Without ``waits`` also when there is nothing to do.
        """
        while ready := select.select([self._parent, self._woken], [], [], None if waits else 0)[0]:
            if self._woken in ready:
                self._woken.recv(_MAX_ORDER_BYTES)
                self._report_ended()
            if self._parent in ready:
                raw, files, *_ = socket.recv_fds(self._parent, _MAX_ORDER_BYTES, 3)
                if not raw:
                    return None
                if forked := self._fork(json.loads(raw), files):
                    return forked
        return None

    def _fork(self, order: dict[str, object], files: list[int]) -> Forked | None:
        names, program = order["names"], order["program"]
        assert isinstance(names, list)
        pid = os.fork()
        if pid:
            for fd in files:
                os.close(fd)
            self._report("forked", pid=pid)
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (self._parent, self._woken, self._waker):
            each.close()
        return Forked(str(program), dict(zip(names, files, strict=True)))

    def _report_ended(self) -> None:
        with contextlib.suppress(ChildProcessError):  # there is none left
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._report("ended", pid=pid, code=os.waitstatus_to_exitcode(status))

    def _report(self, what: str, **facts: int) -> None:
        with contextlib.suppress(OSError):  # the parent has ended
            self._parent.sendall(json.dumps({"is": what, **facts}).encode() + b"\n")


def _run(forked: Forked) -> int:
    """Run one program until it has to end; return the exit code."""
    from convotic_celery.cli.dev.programs import PROGRAMS

    os.setsid()
    _name_process(forked.program)
    for fd in forked.files.values():
        os.set_inheritable(fd, False)
    if (output := forked.files.get("output")) is not None:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for fd, number in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(fd, number)
        os.close(nothing)
        os.close(output)
    control = Control(forked.files["control"])
    program = PROGRAMS[forked.program]
    program.preload()
    orders = Orders(**control.wait(), listener=forked.files.get("listener", -1))
    # Two saves within a second may leave a .pyc of the first that looks like the second's.
    sys.dont_write_bytecode = True
    _quieten()
    loaded = _load(control, debug=orders.debug_port is not None)
    if loaded is None:
        return 1
    control.report("loaded", **loaded.facts)
    control.wait()
    control.end_with_parent()
    return program.run(loaded.app, orders, control)


def _name_process(program: str) -> None:
    """Have ``top`` and ``ps`` say which program it is, where that can be done (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(f"dev-{program}", encoding="ascii")


def _load(control: Control, *, debug: bool) -> Loaded | None:
    from convotic_celery.cli.dev.programs import load
    from convotic_celery.cli.faults import describe_fault, loaded_folders
    from convotic_celery.errors import ConvoticError

    try:
        return load(debug=debug)
    except ConvoticError as error:
        text = describe_fault(error).text
    except Exception:  # noqa: BLE001 - a fault of ours: shown, and the old process goes on
        text = traceback.format_exc()
    control.report("failed", error=text, folders=loaded_folders())
    return None


def _quieten() -> None:
    """Hide warnings that don't matter on a developer's machine."""
    from celery.exceptions import SecurityWarning

    warnings.filterwarnings("ignore", category=SecurityWarning)  # "superuser": in a container


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
