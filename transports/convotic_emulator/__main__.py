"""``python -m convotic_emulator --data-dir DIR``: serve one data folder in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import logging
import logging.handlers
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from convotic_emulator import daemon
from convotic_emulator.errors import ResourcesError, StoreError
from convotic_local import FolderInUse

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LOG_BYTES = 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM, SIGINT, or no client has been connected for a while."""
    options = _parse(arguments)
    try:
        os.umask(0o077)  # the folder may be one that others can read
        with daemon.local_server(options.data_dir).hold():
            _start_logging(options.data_dir)
            from convotic_emulator.process import serve  # noqa: PLC0415  # gRPC after the lock

            asyncio.run(serve(options))
    except (StoreError, ResourcesError, FolderInUse, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # a command's error; a daemon's log has stderr
        return 1
    except sqlite3.Error as error:
        print(f"The data file has failed: {error}", file=sys.stderr)  # noqa: T201  # as above
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m convotic_emulator", description=__doc__)
    parser.add_argument("--data-dir", type=_path, required=True, help="where data is kept")
    parser.add_argument(
        "--host",
        type=lambda text: text.strip("[]"),
        default="127.0.0.1",
        help="where to listen, default %(default)s; there is no authentication",
    )
    parser.add_argument("--port", type=int, default=0, help="default: the last one, or a free one")
    parser.add_argument(
        "--resources",
        type=_path,
        metavar="FILE",
        help="YAML file of topics and subscriptions to create, or to bring in line",
    )
    parser.add_argument(
        "--push-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host that subscriptions may push to, beside this machine; can be repeated",
    )
    parser.add_argument("--fsync", action="store_true", help="survive power loss too; slower")
    parser.add_argument(
        "--idle-seconds",
        type=float,
        default=0.0,
        help="end so long after the last client; 0: never",
    )
    return parser.parse_args(arguments)


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _start_logging(data_dir: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(
        data_dir / daemon.LOG_FILE, maxBytes=MAX_LOG_BYTES, backupCount=1
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
