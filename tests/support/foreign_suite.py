"""Runs tests of somebody else's source distribution, unmodified: fetch, environment, outcome.

What is fetched and made lies outside the repository, in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from convotic_emulator import daemon
from tests.support.google_emulator import start_google_emulator

__all__ = ["REPOSITORY", "Suite", "judge", "run_emulator"]

REPOSITORY = Path(__file__).resolve().parents[2]
#: The project's distributions, as pip takes them.
_PROJECT = [
    part
    for file in (*REPOSITORY.glob("transports/**/pyproject.toml"), REPOSITORY / "pyproject.toml")
    for part in ("--editable", str(file.parent))
]


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests of a package, at the version that is installed here."""

    package: str
    requirements: tuple[str, ...]
    #: What is taken from the sdist, by its path in there.
    parts: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """One a version of package and Python."""
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        version = importlib.metadata.version(self.package)
        return base / "convotic" / f"{self.package}-{version}-py{sys.version_info.minor}"

    @property
    def tests(self) -> Path:
        """The folder with the parts."""
        return self.folder / "tests"

    def prepare(self) -> None:
        """Download the sdist and make the environment, once; another checkout replaces this."""
        folder, ready = self.folder, self.folder / "ready"
        pip = [str(folder / "venv/bin/pip"), "--quiet", "--disable-pip-version-check", "install"]
        if ready.exists():
            if ready.read_text() != str(REPOSITORY):
                subprocess.run([*pip, "--no-deps", *_PROJECT], check=True)
                ready.write_text(str(REPOSITORY))
            return
        shutil.rmtree(folder, ignore_errors=True)
        self.tests.mkdir(parents=True)
        pinned = f"{self.package}=={importlib.metadata.version(self.package)}"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"),
                *("download", "--no-binary", self.package, "--no-deps", pinned),
            ],
            check=True,
            cwd=folder,
        )
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder / "sdist", filter="data")
        source = next((folder / "sdist").iterdir())
        for part in self.parts:
            shutil.move(source / part, self.tests / Path(part).name)
        venv.create(folder / "venv", with_pip=True)
        subprocess.run([*pip, *self.requirements, *_PROJECT], check=True)
        ready.write_text(str(REPOSITORY))

    def run(self, arguments: list[str], environment: dict[str, str]) -> Path:
        """Run pytest on the parts; return its report, which is missing when it did not get far."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        path = f"{self.folder / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            [str(self.folder / "venv/bin/pytest"), f"--junitxml={report}", *arguments],
            cwd=self.tests,
            env=os.environ | environment | {"PATH": path},
            check=False,
        )
        return report


@contextlib.contextmanager
def run_emulator(name: str) -> Iterator[str]:
    """Run our emulator (``ours``) or Google's (``google``) for the block; yield its address."""
    if name == "google":
        with start_google_emulator() as address:
            yield address
        return
    data = Path(tempfile.mkdtemp(prefix="convotic-suite-"))
    try:
        yield daemon.ensure_running(data)
    finally:
        daemon.stop(data)
        shutil.rmtree(data, ignore_errors=True)


def judge(report: Path, broker: str, reason_for: Callable[[str, str], str]) -> int:
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
