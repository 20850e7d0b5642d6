"""Every error that this package raises, rooted in `runtime.errors.ModelpressError`.

    ModelError                    a model cannot be had as asked: one line, exit code 2
    ├── UnknownModel              no such name in the zoo (the message suggests the nearest)
    ├── SourceError               a model's source is missing, damaged, or of a kind we cannot read
    ├── DataError                 a data set is missing or malformed (the message says what to do)
    ├── StorageError              a file cannot be written: the disk is full, or the folder is read-only
    ├── MissingExtra              an optional library is not installed
    └── TrainingError             training cannot go on
        ├── MemoryExceeded        it would take more memory than there is
        ├── TrainingDiverged      a loss or gradient is not finite
        └── TrainingInterrupted   Ctrl-C; the checkpoint is saved; exit code 130

A message says what was wrong, where, and what to do about it.
"""

from runtime.errors import ModelpressError


class ModelError(ModelpressError):
    """A model cannot be had as asked."""


class UnknownModel(ModelError):
    """The zoo has no model of that name."""


class SourceError(ModelError):
    """A model's source is missing, damaged, or of a kind that cannot be read."""


class DataError(ModelError):
    """A data set is missing or malformed."""


class StorageError(ModelError):
    """A file cannot be written."""


class MissingExtra(ModelError):
    """An optional library is not installed."""


class TrainingError(ModelError):
    """Training cannot go on."""


class MemoryExceeded(TrainingError):
    """A training would take more memory than this process may use."""


class TrainingDiverged(TrainingError):
    """A loss or a gradient is not finite."""


class TrainingInterrupted(TrainingError):
    """The user stopped the training; its checkpoint is saved. The command line exits with `exit_code`."""

    exit_code = 130


def one_line(error: BaseException, most: int) -> str:
    """What an error of other code says, its line breaks gone, in at most so many characters."""
    return " ".join(str(error).split())[:most]
