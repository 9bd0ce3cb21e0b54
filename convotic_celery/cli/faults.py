"""Faults of modules and settings as a person reads them: where, what, and what to do about it."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from convotic_celery.errors import ConvoticError

__all__ = ["Fault", "describe_fault", "loaded_folders"]

_WHERE = re.compile(r"(?P<file>[^\n:]+\.py):(?P<line>\d+): ")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to fix before everything loads."""

    #: ``modules/shop.py:12``, a module's name, or a variable's; "" where the text says it.
    where: str
    what: str
    #: The line of code at ``where``; "" if there is none.
    code: str = ""
    #: What to do; "" where ``what`` says it.
    advice: str = ""

    @property
    def text(self) -> str:
        """The whole, for a terminal."""
        first = f"{self.where}: {self.what}" if self.where else self.what
        return "\n    ".join(line for line in (first, self.code, self.advice) if line)


def describe_fault(error: Exception) -> Fault:
    """Return what an error of loading says; files in the working directory have short names."""
    text = str(error).replace(f"{Path.cwd()}/", "")
    match = _WHERE.match(text)
    if match is None:
        return Fault("", text)
    where, what = f"{match['file']}:{match['line']}", text[match.end() :]
    code = linecache.getline(match["file"], int(match["line"])).strip()
    return Fault(where, what, code, _advise(error.__cause__))


def _advise(cause: BaseException | None) -> str:
    match cause:
        case None | ConvoticError():  # its text says it
            return ""
        case ModuleNotFoundError(name=str(name)):
            package = name.partition(".")[0]
            return (
                f"Install {package!r} (python -m pip install …) for {sys.executable}, or "
                "correct the name."
            )
        case SyntaxError():
            return "Python can't parse this line; sometimes the error is in the one above."
        case ImportError() | NameError() | AttributeError():
            return "Correct the name, or import it."
        case _:
            return "This line raised it while the module was loaded."


def loaded_folders() -> list[str]:
    """Return the folders whose Python files this process has imported, installed ones left out."""
    paths = sysconfig.get_paths()
    installed = {Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    ours = Path(__file__).resolve().parents[2]
    folders = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            folders.add(Path(file).resolve().parent)
    return sorted(
        str(folder)
        for folder in folders
        if not any(folder.is_relative_to(each) for each in (*installed, ours))
    )
