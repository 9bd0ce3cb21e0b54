"""The peers' brokers, each a private process on a free port with its data in the run's folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from convotic_celery.embedded.store import find_binary
from tests.support.waiting import wait_until

__all__ = ["MissingPeer", "rabbitmq", "redis_server"]

#: Debian's; ``/usr/sbin/rabbitmq-server`` insists on the user rabbitmq.
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class MissingPeer(Exception):
    """A peer is not installed here; its rows report that."""


@contextlib.contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """Run a RabbitMQ node of its own, with its own epmd; yield its AMQP URL."""
    if not _RABBITMQ.exists():
        raise MissingPeer("apt-get install rabbitmq-server")
    port, distribution, epmd = (free_port() for _ in range(3))
    folder.mkdir(parents=True)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.file.level = warning\n"
    )
    (folder / "plugins").write_text("[].\n")
    environment = os.environ | {
        "HOME": str(folder),  # the Erlang cookie
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }
    try:
        with serving([str(_RABBITMQ)], port, folder / "out.log", environment):
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:  # epmd is a daemon of its own, and refuses while a node is registered
        command = ["epmd", "-port", str(epmd), "-kill"]
        subprocess.run(command, capture_output=True, check=False)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run the Valkey of our wheel, without persistence; yield its Redis URL."""
    port = free_port()
    folder.mkdir(parents=True)
    arguments = [str(find_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with serving(arguments, port, folder / "out.log", dict(os.environ), cwd=folder):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def serving(
    command: list[str], port: int, log: Path, environment: dict[str, str], cwd: Path | None = None
) -> Iterator[None]:
    """Run a server in a process group of its own until it listens; end the group afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: listens(port) or process.poll() is not None,
            timeout=60,
            what=f"{command[0]} on port {port}",
        )
        if process.poll() is not None:
            raise MissingPeer(f"{command[0]} does not start: {log.read_text()[-300:]}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(log.parent, ignore_errors=True)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
