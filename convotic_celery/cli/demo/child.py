"""A process of the demo: in a group of its own, with a log, and never outliving the demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

__all__ = ["Child"]

#: Warm shutdown finishes what runs; the sample's handler takes milliseconds.
STOP_TIMEOUT_SECONDS = 20.0

#: Runs ``python -m`` with its arguments, after asking Linux to kill it when its parent dies. The
#: usual clean-up can't run when the demo itself is killed with -9; this needs none.
_BOOTSTRAP = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the demo has ended")
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""


class Child:
    """A running ``python -m MODULE ...``. As a context manager it is stopped at the end."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
    ) -> None:
        """Start it; standard output and error are appended to ``log``."""
        self._log = log
        command = [sys.executable, "-c", _BOOTSTRAP, str(os.getpid()), *arguments]
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Return the child."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def is_running(self) -> bool:
        """True until it has ended, for whatever reason."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL the whole process group, as a crash or the out-of-memory killer would."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end, with SIGTERM to the process itself. Idempotent."""
        self._process.terminate()

    def wait(self, timeout_seconds: float) -> int:
        """Return its exit code once it has ended.

        Raises:
            TimeoutError: It still runs after ``timeout_seconds``.
        """
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {timeout_seconds:g} s") from None

    def stop(self) -> None:
        """Have it end cleanly, by force after :data:`STOP_TIMEOUT_SECONDS`. Idempotent."""
        self.terminate()
        with suppress(TimeoutError):
            self.wait(STOP_TIMEOUT_SECONDS)
        self.kill()  # whatever it left behind in its group

    def last_lines(self, count: int = 15) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])
