"""Where this package keeps its files, and how it writes them: whole or not at all.

A file is written under a temporary name and renamed, so a reader never sees half of one, whatever kills the
writer. The trade-off: a killed writer leaves its temporary file behind, which the next writer ignores.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import StorageError

if TYPE_CHECKING:
    import numpy.typing as npt


def home() -> Path:
    """The cache: $MODELPRESS_HOME, else ~/.cache/modelpress."""
    chosen = os.environ.get("MODELPRESS_HOME")
    return Path(chosen) if chosen else Path.home() / ".cache" / "modelpress"


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole. Raises StorageError when the disk will not take it."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_bytes(content)
        staging.replace(path)
    except OSError as error:
        with suppress(OSError):
            staging.unlink()
        raise StorageError(
            f"{path}: cannot be written: {error.strerror}; free some space or set MODELPRESS_HOME"
        ) from None


def digest(*parts: str | bytes) -> str:
    """sha256, in hexadecimal, over the parts and their lengths (so that no two lists of parts collide)."""
    state = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        state.update(f"{len(content)}:".encode() + content)
    return state.hexdigest()


def arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """sha256, in hexadecimal, over the arrays with their names, dtypes and shapes, in their order."""
    state = hashlib.sha256()
    for name, array in arrays.items():
        state.update(f"{name} {array.dtype} {array.shape} ".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """sha256, in hexadecimal, of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digest(modules: Iterable[str]) -> str:
    """sha256 over the source of `modules`, without importing them (their parent packages are imported)."""
    return digest(*(file_digest(_origin(module)) for module in modules))


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution; '' for one that is not installed."""
    return {name: _version(name) for name in distributions}


def _origin(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
