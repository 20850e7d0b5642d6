"""The Python standard library's source files: a corpus that every installation already has.

Without tests, tables (codecs, pydoc's topics) and vendored packages: about 550 files, 12 MB. It says which
files there are; what is made of them is the data sets' own.
"""

import hashlib
import os
import sysconfig
from functools import cache
from pathlib import Path

# Not code to learn from: tests, other people's packages, and tables written as code.
EXCLUDED = {"test", "tests", "idle_test", "site-packages", "lib2to3", "encodings", "pydoc_data"}


@cache
def library_root() -> Path:
    """The folder that the standard library is in."""
    return Path(sysconfig.get_path("stdlib"))


@cache
def library_files() -> tuple[Path, ...]:
    """Every source file, in order."""
    found = []
    for folder, folders, files in os.walk(library_root()):
        folders[:] = [name for name in folders if name not in EXCLUDED]
        paths = (Path(folder, name) for name in files if name.endswith(".py"))
        found += [path for path in paths if not path.name.startswith("_sysconfigdata")]
    return tuple(sorted(found))


def hashed(path: Path) -> int:
    """A number that a file of the library keeps whatever else is installed: sha256 of its relative path."""
    return int(hashlib.sha256(path.relative_to(library_root()).as_posix().encode()).hexdigest(), 16)
