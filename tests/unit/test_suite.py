"""What the test suite promises about itself, wherever it is started."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_children_take_sigint_also_where_the_shell_ignores_it() -> None:
    """A session started with SIGINT ignored (nohup, a background job) still tests Ctrl-C."""
    code = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from tests.conftest import pytest_configure\n"
        "pytest_configure()\n"
        "ask = 'import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)'\n"
        "print(subprocess.check_output([sys.executable, '-c', ask], text=True))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
