"""A content-addressed cache of stages: the key is everything a result depends on, the value a folder.

A stage that fails leaves nothing; one that is killed leaves a temporary folder that no key names. A folder
whose files are not what its record says is made again. Two runs at once may both make a stage, and the first
one's stays. It knows nothing of what a stage does.
"""

import errno
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from models.errors import StorageError
from models.storage import home, versions
from runtime.bundle import file_record

RECORD = "stage.json"
# What a write that fails half-way says, without the file's name.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LIBRARIES = ("modelpress", "numpy", "onnx", "onnxruntime", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Stage:
    """One finished stage: its folder, what it measured, how long it took, and whether that was now."""

    key: str
    folder: Path
    figures: dict[str, Any]
    seconds: float
    cached: bool


def run_stage(
    name: str, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any]], root: Path | None = None
) -> Stage:
    """The stage for `inputs` (JSON values): from the cache, or by `make(folder)`, which gives figures.

    Raises StorageError when the disk is full, and what `make` raises.
    """
    key = digest({"stage": name, **inputs})
    target = (root or home() / "stages") / f"{name}-{key[:24]}"
    if found := _read(target, key):
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        start = time.perf_counter()
        figures = make(staging)
        _write_record(staging, key, figures, time.perf_counter() - start)
        _settle(staging, target, key)
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            raise StorageError(
                f"{target.parent}: {error.strerror}; free some space or set MODELPRESS_HOME"
            ) from None
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    made = _read(target, key)
    assert made is not None
    return Stage(key, target, made.figures, made.seconds, cached=False)


def digest(value: Any) -> str:
    """sha256 of a JSON value, keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@cache
def library_versions() -> Mapping[str, str]:
    """The installed versions of what computes the results, read without importing any of it."""
    return versions(LIBRARIES)


def _settle(staging: Path, target: Path, key: str) -> None:
    """Put `staging` at `target`, unless the same stage stands there by now: another run may be reading it."""
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        if _read(target, key) is None:
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)


def _write_record(folder: Path, key: str, figures: dict[str, Any], seconds: float) -> None:
    files = {path.name: file_record(path).model_dump() for path in sorted(folder.iterdir())}
    record = {"key": key, "figures": figures, "seconds": round(seconds, 3), "files": files}
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def _read(folder: Path, key: str) -> Stage | None:
    try:
        record = json.loads((folder / RECORD).read_text())
        whole = all(file_record(folder / name).model_dump() == was for name, was in record["files"].items())
        if record["key"] != key or not whole:
            return None
        return Stage(key, folder, record["figures"], record["seconds"], cached=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
