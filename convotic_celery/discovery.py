"""Where modules are found, how they are imported, and how a broken one is explained.

Owns ``sys.path``: beyond that and ``sys.modules`` nothing is changed. What a module registers is
read in ``modules.py``.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from itertools import chain
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from convotic_celery.errors import ConvoticError, ModuleError, ModuleNotFound
from convotic_celery.sdk.module import ConvoticModule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import ModuleType

    #: What is called with a fault instead of raising it.
    OnFault: TypeAlias = Callable[[ConvoticError], None]

__all__ = ["ENTRY_POINT_GROUP", "explain_errors", "find_modules", "tolerating"]

#: Third-party wheels name their modules here: ``crm = "acme_crm:module"``.
ENTRY_POINT_GROUP = "convotic.modules"

logger = getLogger(__name__)


def find_modules(
    folder: Path,
    names: Sequence[str] | None,
    *,
    django: bool = False,
    on_fault: OnFault | None = None,
) -> Iterator[tuple[ConvoticModule, str]]:
    """Import and yield modules with where they come from: those named, or all that are found.

    One module may come twice, by two ways. Raises ModuleError that names file and cause, or calls
    ``on_fault`` with it and goes on.
    """
    folder = folder.resolve()
    _extend_path(folder)
    if django:
        with tolerating(on_fault), explain_errors("DJANGO_SETTINGS_MODULE", None):
            _set_up_django()
    if names is not None:
        return _load_all_named(names, on_fault)
    return chain(_load_folder(folder, on_fault), _load_entry_points(on_fault))


@contextmanager
def tolerating(on_fault: OnFault | None) -> Iterator[None]:
    """Give an error of ours to ``on_fault`` and go on behind the block; raise it without one."""
    try:
        yield
    except ConvoticError as error:
        if on_fault is None:
            raise
        on_fault(error)


def _extend_path(folder: Path) -> None:
    """Have the folder's modules importable by their own names, and code of the working directory.

    The folder comes first, so that ``./modules/x`` wins over an installed ``x``; the working
    directory comes last, as it is no place for modules.
    """
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    here = Path.cwd()
    if str(here) not in sys.path and "" not in sys.path:
        sys.path.append(str(here))
    # In a sub-folder of a project: its code as well.
    if here.is_relative_to(folder.parent) and str(folder.parent) not in sys.path:
        sys.path.append(str(folder.parent))
    importlib.invalidate_caches()


def _set_up_django() -> None:
    """Have models importable, as ``manage.py`` does; not where Django is set up or is doing it."""
    if PathFinder.find_spec("django") is None:
        return  # Celery warns of that
    django = importlib.import_module("django")  # by name: it is no dependency here
    apps = importlib.import_module("django.apps").apps
    if not (apps.models_ready or apps.loading):
        django.setup()


def _load_all_named(
    names: Iterable[str], on_fault: OnFault | None
) -> Iterator[tuple[ConvoticModule, str]]:
    for text in names:
        with tolerating(on_fault):
            yield from _load_named(text)


def _load_named(text: str) -> Iterator[tuple[ConvoticModule, str]]:
    name, _, attribute = text.partition(":")
    with explain_errors(text, None):
        python_module = importlib.import_module(name)
    if not attribute:
        module = _find_module(python_module)
        if module is None:
            raise ModuleError(f"{text}: {_describe_missing(python_module)}")
        yield module, text
        return
    found = getattr(python_module, attribute, None)
    if not isinstance(found, ConvoticModule):
        raise ModuleError(f"{text}: {name} has no ConvoticModule named {attribute!r}.")
    yield found, text


def _load_folder(folder: Path, on_fault: OnFault | None) -> Iterator[tuple[ConvoticModule, str]]:
    for name, file in _list_candidates(folder):
        with tolerating(on_fault):
            module = _load_file(name, file)
            if module is not None:
                yield module, str(file)


def _load_file(name: str, file: Path) -> ConvoticModule | None:
    if not name.isidentifier():
        path = file.parent if file.name == "__init__.py" else file
        raise ModuleError(
            f"{path}: {name!r} can't be imported; rename it with letters, digits and '_'."
        )
    _refuse_taken(name, file)
    _check_shadowed(name, file)
    with explain_errors(str(file), file):
        python_module = importlib.import_module(name)
    _refuse_taken(name, file)  # a copy that stands earlier on the path was imported instead
    module = _find_module(python_module)
    if module is None:
        logger.warning("Skipped %s: %s", file, _describe_missing(python_module))
    return module


def _list_candidates(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of each package and file of the folder; ``_`` and ``.`` hide one."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        file = path / "__init__.py" if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            if any(path.glob("*.py")):
                logger.warning("Skipped %s: a module's package needs an __init__.py.", path)
            continue
        if file.suffix != ".py":
            continue
        yield path.name if path.is_dir() else path.stem, file


def _refuse_taken(name: str, file: Path) -> None:
    """Raise ModuleError if importing ``name`` would give, or break, another than ``file``."""
    if name in sys.stdlib_module_names:
        raise ModuleError(f"{file}: the name {name!r} belongs to Python's own library; rename it.")
    imported = sys.modules.get(name)
    other = getattr(imported, "__file__", None)
    if other is not None and not _is_same_file(Path(other), file):
        raise ModuleError(f"{file}: {name!r} is already imported from {other}; rename one of them.")


def _check_shadowed(name: str, file: Path) -> None:
    """Refuse a module that would hide an installed package from the whole process.

    An installed copy of a module may be hidden, and that is logged: its developer has both.
    """
    elsewhere = [
        entry for entry in sys.path if Path(entry) not in (file.parent, file.parent.parent)
    ]
    other = PathFinder.find_spec(name, elsewhere)
    if other is None or not other.origin or _is_same_file(Path(other.origin), file):
        return
    if not _is_for_convotic(Path(other.origin)):
        raise ModuleError(
            f"{file}: {name!r} is installed, at {other.origin}, and whatever imports it would get "
            "this file; rename it."
        )
    logger.warning("%s is used instead of the installed %s.", file, other.origin)


def _is_for_convotic(origin: Path) -> bool:
    """Tell whether an installed file or package has a module, by its text: nothing is imported."""
    files = origin.parent.glob("*.py") if origin.name == "__init__.py" else [origin]
    return any(b"convotic_celery" in file.read_bytes() for file in files)


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _load_entry_points(on_fault: OnFault | None) -> Iterator[tuple[ConvoticModule, str]]:
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        with tolerating(on_fault):
            origin = f"entry point {entry_point.name} = {entry_point.value}"
            with explain_errors(origin, None):
                found = entry_point.load()
            module = found if isinstance(found, ConvoticModule) else _find_module(found)
            if module is None:
                raise ModuleError(f"{origin}: it names no ConvoticModule.")
            yield module, origin


def _find_module(python_module: ModuleType) -> ConvoticModule | None:
    """Return the attribute ``module``, or ``default``, or the only ConvoticModule there is."""
    for attribute in ("module", "default"):
        found = getattr(python_module, attribute, None)
        if isinstance(found, ConvoticModule):
            return found
    others = {id(v): v for v in vars(python_module).values() if isinstance(v, ConvoticModule)}
    if len(others) > 1:
        raise ModuleError(
            f"{python_module.__file__}: it has {len(others)} ConvoticModules; "
            "call the one to be loaded 'module'."
        )
    return next(iter(others.values()), None)


def _describe_missing(python_module: ModuleType) -> str:
    return (
        f"{python_module.__name__} has no ConvoticModule. Define or import it there: "
        "module = ConvoticModule(name=..., version=...)."
    )


@contextmanager
def explain_errors(origin: str, file: Path | None) -> Iterator[None]:
    """Turn whatever a module raises while it is loaded into one ModuleError with file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and _is_itself_missing(origin, error):
            raise ModuleNotFound(
                f"{origin}: there is no Python module {error.name!r}. Is it installed, or in the "
                "modules folder?"
            ) from None
        where = _locate(error, file) or origin
        kind = type(error) if isinstance(error, ModuleError) else ModuleError
        text = str(error) if isinstance(error, ModuleError) else f"{type(error).__name__}: {error}"
        raise kind(text if text.startswith(where) else f"{where}: {text}") from error


def _is_itself_missing(origin: str, error: ModuleNotFoundError) -> bool:
    """True if the module asked for is missing, not one that it imports."""
    name = origin.partition(":")[0]
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")


def _locate(error: BaseException, file: Path | None) -> str | None:
    """Return ``file:line`` of the module's own line that led to the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename != __file__
    ]
    own = [frame for frame in frames if file is not None and _belongs(frame.filename, file)]
    candidates = own or [frame for frame in frames if not _is_ours(frame.filename)]
    return f"{candidates[-1].filename}:{candidates[-1].lineno}" if candidates else None


def _belongs(filename: str, file: Path) -> bool:
    return Path(filename).is_relative_to(file.parent if file.name == "__init__.py" else file)


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parent) or "importlib" in filename
