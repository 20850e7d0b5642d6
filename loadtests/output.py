"""Files that a run leaves: written all or not at all, and tried before the run for whether they can be.

What is no regular file, such as `/dev/stdout` or a pipe, is written to as it is: a file renamed onto it would
take its place.
"""

import os
from pathlib import Path

from loadtests.errors import InvalidOption


def check_writable(path: Path, option: str = "--out") -> None:
    """Raises InvalidOption if a file could not be written there after the run."""
    try:
        place = path if _is_device(path) else path.resolve().parent
        writable = os.access(place, os.W_OK) and not path.is_dir()
    except (OSError, RuntimeError):  # a name that is too long; links that lead in a circle
        writable = False
    if not writable:
        raise InvalidOption(f"{option} {path}: not a file in a folder that can be written to")


def write(text: str, path: Path, option: str = "--out") -> None:
    """Under another name first, and then renamed; where a link leads. Raises InvalidOption."""
    try:
        if _is_device(path):
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path.resolve(), text)
    except OSError as error:
        raise InvalidOption(f"{option} {path}: {error.strerror}") from error


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
