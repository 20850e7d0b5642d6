"""Which of the project's modules a module's results depend on, and the digest of their code: for keys.

What a module imports, at its top or inside a function, and what that imports. It is found in the text,
without importing or even parsing it (`ast` takes twenty times as long, and every run asks): a line that looks
like an import counts as one. What only type checkers import does not. A module that is imported by a computed
name is not found: its caller names it.

A member of the zoo has a fingerprint by a rule of its own, so that no edit elsewhere trains it again: what it
is made of is left out.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import compress

PACKAGES = ("compress", "models", "runtime")
APART = "models.zoo"

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([\w.]+))", re.MULTILINE
)
_NAME = re.compile(r"(?:^|[(,])\s*(\w+)")
_COMMENT = re.compile(r"#[^\n]*")
_FOR_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+[^\n]*\n|\n)+", re.MULTILINE)


def code_of(*modules: str, root: Path | None = None) -> str:
    """sha256, in hexadecimal, over the code that the results of these modules depend on (`modules_of`)."""
    state = hashlib.sha256()
    for name, path in modules_of(*modules, root=root).items():
        state.update(f"{name} {_read(path)[0]}\n".encode())
    return state.hexdigest()


def modules_of(*modules: str, root: Path | None = None) -> Mapping[str, Path]:
    """These modules and all that they import of the project in `root`, with their files, by name.

    A module of another package, such as a method of the user's own, is looked up where it was imported from;
    of what that imports, only the project's count.
    """
    root = root or Path(compress.__path__[0]).parent
    found: dict[str, Path] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in found or name == APART or name.startswith(f"{APART}."):
            continue
        path = _file(name, root)
        if path is not None:
            found[name] = path
            todo += _read(path)[1]
            # Importing a module runs the packages that it is in.
            todo += filter(None, [name.rpartition(".")[0]])
    return dict(sorted(found.items()))


@cache
def _file(module: str, root: Path) -> Path | None:
    """Its source; None for what is no module of ours, but a name in one."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        place = getattr(sys.modules.get(module), "__file__", None)
        return Path(place) if place else None
    path = root.joinpath(*parts)
    choices = (path / "__init__.py", path.with_suffix(".py"))
    return next((choice for choice in choices if choice.is_file()), None)


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of a file, and what it imports: once for each, as its code is what was imported by then."""
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), tuple(set(_imported(content.decode("utf-8", "replace"))))


def _imported(text: str) -> Iterator[str]:
    """Every module of the project that `text` imports, and every name that may be one."""
    for package, names, module in _IMPORT.findall(_FOR_TYPES.sub("", text)):
        name = package or module
        if name.partition(".")[0] in PACKAGES:
            yield name
            yield from (f"{name}.{each}" for each in _NAME.findall(_COMMENT.sub("", names)))
