"""A child of ``convotic dev``: imports what its program needs, waits, loads the modules, runs.

Run as ``python -m convotic_celery.cli.dev.child PROGRAM FD``. FD is a socket: orders come in, and
reports go out, one JSON object a line. A spare child has reported ``preloaded`` and waits, so that
a reload costs the import of the modules alone. It ends when its parent does, however that ends.

===========  =======================================================================
order        :class:`Orders`, to load the modules; then ``{}``, to run
report       ``preloaded``; ``loaded`` with facts, or ``failed`` with a text; ``ready``;
             ``stopping``
===========  =======================================================================
"""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import TYPE_CHECKING

from convotic_celery.cli.dev.control import Control, Orders

if TYPE_CHECKING:
    from convotic_celery.cli.dev.programs import Loaded

__all__ = ["main"]


def main(program_name: str, fd: int) -> int:
    """Run one program until it has to end; return the exit code."""
    from convotic_celery.cli.dev.programs import PROGRAMS

    control = Control(fd)
    program = PROGRAMS[program_name]
    program.preload()
    control.report("preloaded")
    orders = Orders(**control.wait())
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
    """Leave out what is not news on a developer's machine."""
    from celery.exceptions import SecurityWarning

    warnings.filterwarnings("ignore", category=SecurityWarning)  # "superuser": in a container


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
