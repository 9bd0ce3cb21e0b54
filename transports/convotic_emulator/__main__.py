"""``convotic-emulator``, ``python -m convotic_emulator``: serve a data folder in the foreground."""

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

from convotic_emulator import __version__, daemon
from convotic_emulator.errors import ResourcesError, StoreError
from convotic_local import FolderInUse

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LOG_BYTES = 1_000_000
_MAX_PORT = 65_535
_DESCRIPTION = """An emulator of Google Cloud Pub/Sub, gRPC and REST on one port, for any client
that takes PUBSUB_EMULATOR_HOST."""


def command() -> int:
    """Be ``convotic-emulator``: as ``main``, on the usual port and in the usual folder."""
    arguments = sys.argv[1:]
    options = parse(arguments, prog="convotic-emulator", port=8085, data_dir=".convotic")
    print(f"Data in {options.data_dir}; Ctrl-C ends it.", file=sys.stderr)  # noqa: T201
    return run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be ``python -m convotic_emulator``, which a client starts for a folder of its choice."""
    return run(parse(arguments))


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM, SIGINT, or no client has been connected for a while."""
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


def parse(
    arguments: Sequence[str] | None,
    prog: str = "python -m convotic_emulator",
    port: int = 0,
    data_dir: str | None = None,
) -> argparse.Namespace:
    """Return the options of a command line; exits where it is wrong."""
    parser = argparse.ArgumentParser(prog=prog, description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--data-dir",
        type=_path,
        required=data_dir is None,
        default=data_dir,
        help="folder of the data" + (f", default {data_dir}" if data_dir else ""),
    )
    parser.add_argument(
        "--host",
        type=lambda text: text.strip("[]"),
        default="127.0.0.1",
        help="where to listen, default %(default)s; there is no authentication",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=port,
        help="port to listen on, default %(default)s; 0: the last one, or a free one",
    )
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


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{number} is no port: 0 to 65535")
    return number


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
