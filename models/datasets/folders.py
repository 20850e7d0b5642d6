"""Files of data sets that the project does not carry: found under $MODELPRESS_DATA, never downloaded."""

import os
from pathlib import Path

from models.errors import DataError


def data_file(dataset: str, name: str) -> Path:
    """The path of a data set's file. Raises DataError that says where to put it."""
    root = os.environ.get("MODELPRESS_DATA")
    if not root:
        raise DataError(
            f"data set '{dataset}' is not here; "
            f"put it into a folder '{dataset}' and set MODELPRESS_DATA to that folder's parent"
        )
    path = Path(root) / dataset / name
    if not path.is_file():
        raise DataError(f"{path}: missing; data set '{dataset}' needs it (MODELPRESS_DATA is {root})")
    return path
