"""Tasks and scorers from outside: ``my.py:MyTask`` in a file of the user's, or a name that an installed package declares.

A file is executed because its user names it, and for no other reason: reading, listing or checking a run executes nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from cos_interp.interp.errors import InterpError

TASK_GROUP, SCORER_GROUP = "cos_interp.tasks", "cos_interp.scorers"  # entry points of packages
FILE = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")
PREFIX = "cos_outside_"  # of the modules that user files become


def is_file(text: str) -> bool:
    """Whether a text has the form ``path.py:Name``."""
    return FILE.fullmatch(text) is not None


def declared(group: str) -> dict[str, EntryPoint]:
    """What installed packages declare under a group of entry points, by name."""
    return {found.name: found for found in entry_points(group=group)}


def is_outside(text: str, group: str) -> bool:
    """Whether a text names something from outside; nothing is executed to know it."""
    return is_file(text) or text in declared(group)


def load(text: str, group: str) -> Any:
    """The object that ``path.py:Name`` or an entry point names. Executes the file, once for each content.

    InterpError where the file or the name is missing, or where executing it fails.
    """
    given = FILE.fullmatch(text)
    if given is None:
        try:
            return declared(group)[text].load()
        except Exception as error:  # whatever a package does when it is imported
            raise InterpError(f"{text} of the entry points {group} cannot be loaded: {_told(error)}") from error
    path, name = Path(given["path"]), given["name"]
    module = _executed(path)
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise InterpError(f"{path} has no {name!r}; it defines {', '.join(own) or 'nothing'}")
    return getattr(module, name)


def _executed(path: Path) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InterpError(f"{path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(bytes(str(path.resolve()), "utf-8", "surrogateescape") + b"\0" + source).hexdigest()[:16]
    name = f"{PREFIX}{path.stem if path.stem.isidentifier() else 'file'}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a path that ends with .py has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # what stands beside it can be imported, as in a script
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise InterpError(f"{path} cannot be executed: {_told(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _told(error: BaseException) -> str:
    line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{line}"


# --- content ---------------------------------------------------------------------------------------------------------


def content(text: str, group: str) -> dict[str, str]:
    """sha256 of the code that a name stands for, by file: the file itself and what it imported from its own folder.

    A package that is installed counts by its version and the file that the name leads to.
    """
    found = load(text, group)
    given = FILE.fullmatch(text)
    if given is not None:
        file = Path(given["path"]).resolve()
        loaded = [Path(found) for found in (getattr(m, "__file__", None) for m in list(sys.modules.values())) if found]
        # some modules have a name there that is no path, like torch's _classes.py
        beside = {path.resolve() for path in loaded if path.is_absolute() and path.suffix == ".py" and path.is_file()}
        own = {file, *(path for path in beside if path.parent == file.parent)}
        return {path.name: _digest(path) for path in sorted(own)}
    package = declared(group)[text].dist
    at = {f"{package.name} {package.version}": "installed"} if package is not None else {}
    module = inspect.getmodule(found if inspect.isclass(found) or inspect.isroutine(found) else type(found))
    source = getattr(module, "__file__", None)
    return at | ({Path(source).name: _digest(Path(source))} if source else {})


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
