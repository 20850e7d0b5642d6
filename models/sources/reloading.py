"""Imports of a user's own code, by what its files say now: Python keeps what it has once imported.

Whatever is first imported while `imported_anew` lasts, and is a file of the user's rather than an installed
package's, is remembered with its digest. When one of them has been edited since, all of them are forgotten,
because they may hold parts of each other, and are imported again. What the caller had imported before us is
the caller's, and stays.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import cache_from_source
from pathlib import Path

from models.storage import file_digest

_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))

# The user's modules, by name: the file, and the digest that it had.
_remembered: dict[str, tuple[Path, str]] = {}
# The packages that were first imported by us; a namespace package has no file to be remembered by.
_packages: set[str] = set()


@contextmanager
def imported_anew() -> Iterator[None]:
    """What is imported of the user's code until the end of the context is as its files are."""
    if edited := [path for path, digest in _remembered.values() if _digest(path) != digest]:
        _forget(edited)
    before = set(sys.modules)
    packages = {name.partition(".")[0] for name in before}
    try:
        yield
    finally:
        new = [name for name in list(sys.modules) if name not in before]
        _packages.update({name.partition(".")[0] for name in new} - packages)
        for name in new:
            if name.partition(".")[0] in _packages and (path := _own_file(name)):
                _remembered[name] = (path, _digest(path))


def _forget(edited: list[Path]) -> None:
    for name in _remembered:
        sys.modules.pop(name, None)
    _remembered.clear()
    for path in edited:
        # Python knows stale bytecode by size and second, which an edit may leave alike.
        with suppress(OSError, NotImplementedError):
            Path(cache_from_source(str(path))).unlink()
    importlib.invalidate_caches()


def _own_file(module: str) -> Path | None:
    place = getattr(sys.modules[module], "__file__", None)
    path = Path(place) if place else None
    if path is None or path.suffix != ".py" or any(path.is_relative_to(each) for each in _INSTALLED):
        return None
    return path


def _digest(path: Path) -> str:
    """Of the file; of none for one that is gone, whose module is imported from wherever it is now."""
    try:
        return file_digest(path)
    except OSError:
        return ""
