"""Files that a run leaves: written all or not at all, and tried before the run for whether they can be."""

import os
from pathlib import Path

from loadtests.errors import InvalidOption


def check_writable(path: Path, option: str = "--out") -> None:
    """Raises InvalidOption if a file could not be written there after the run."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise InvalidOption(f"{option} {path}: not a file in a folder that can be written to")


def write(text: str, path: Path, option: str = "--out") -> None:
    """Under another name first, and then renamed. Raises InvalidOption."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InvalidOption(f"{option} {path}: {error.strerror}") from error
