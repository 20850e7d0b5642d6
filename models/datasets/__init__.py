"""The registered data sets, and the one door to them and to a user's own files.

Opening reads nothing; a split is read on first use. No data set is downloaded: most are made of what every
installation has, the others are looked for under $MODELPRESS_DATA.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from models.datasets import files
from models.datasets.dataset import IGNORED, Dataset, Split, SplitName, View
from models.errors import DataError, one_line
from runtime.suggest import nearest

__all__ = ["IGNORED", "Dataset", "Split", "View", "dataset_fingerprint", "load_dataset"]

# Each module has `fingerprint() -> str` and `open_dataset(view) -> Dataset`.
_NAMES = (
    *("captions", "code_tokens", "cooccurrences", "cora", "digits", "docstrings", "drawings"),
    *("imports", "multi30k", "packages", "questions", "scenes", "sentences", "sst2"),
    *("stdlib", "stdlib_pieces", "sts", "words"),
)
# What reading a file that is cut short, of another layout, or no text raises.
_DAMAGE = (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, zlib.error)
_REGISTERED = {name.replace("_", "-"): f"models.datasets.{name}" for name in _NAMES}


def load_dataset(reference: str, view: View | None = None) -> Dataset:
    """A registered data set, or a .npz, .jsonl, .tsv or .csv file, encoded as `view` wants it.

    Raises DataError for an unknown name, a missing or malformed file, or a model that cannot take the data.
    """
    chosen = view or View()
    if reference in _REGISTERED:
        with _readable(reference):
            return _guarded(_module(reference).open_dataset(chosen))
    return files.open_dataset(_path(reference), chosen)


def dataset_fingerprint(reference: str) -> str:
    """sha256 over a data set's content and split, found without encoding it."""
    if reference in _REGISTERED:
        value: str = _module(reference).fingerprint()
        return value
    return files.fingerprint(_path(reference))


def _guarded(dataset: Dataset) -> Dataset:
    """`dataset`, whose splits are read from files on first use."""

    def load(split: SplitName) -> Split:
        with _readable(dataset.name):
            return dataset.load(split)

    return replace(dataset, load=load)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raises DataError where the files of a registered set do not hold what they should."""
    try:
        yield
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise DataError(f"data set '{name}' cannot be read ({reason}); copy its files again") from error


def _module(name: str) -> ModuleType:
    return import_module(_REGISTERED[name])


def _path(reference: str) -> Path:
    path = Path(reference)
    if path.suffix in files.SUFFIXES:
        return path
    raise DataError(
        f"data '{reference}' is neither a registered set nor a {', '.join(files.SUFFIXES)} file; "
        + nearest(reference, _REGISTERED)
    )
