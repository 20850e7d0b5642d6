"""A decoder's embedding outside of its graph: the rows of a call's tokens, read from a file.

In a graph the whole table is resident, often beside an output head of the same weights, and a step looks at
one row for each sequence. Here none of it is: rows are read, not mapped, since a page that is touched brings
64 KiB of the file with it and stays. It gives what the graph's operator would have, to the last bit.
The trade-off: a system call or three for each token, about a microsecond each.
"""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import GraphError, InputError
from runtime.manifest import EmbeddingTable, TablePart
from runtime.processing import Array

FLOATS = {16: np.float16, 32: np.float32}


class Embedding:
    """The rows that `table` describes, in the file at `path`, which stays open as long as this is used.

    For any number of threads. Raises GraphError where the file is missing or too short.
    """

    def __init__(self, path: Path, table: EmbeddingTable) -> None:
        self.table = table
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise GraphError(f"{path}: cannot be read ({error.strerror}); publish the bundle again") from None
        weakref.finalize(self, os.close, self._file)
        parts = [part for part in (table.values, table.scales, table.zero_points) if part]
        if os.fstat(self._file).st_size < max(part.offset + table.tokens * part.row_bytes for part in parts):
            raise GraphError(f"{path}: too short for its embedding; publish the bundle again")

    def look_up(self, tokens: Array, out: Array) -> None:
        """Write the rows of `tokens` int64 [batch, sequence] into `out` float32 [batch, sequence, width].

        Raises InputError for a token that the table does not have.
        """
        table, wanted = self.table, tokens.ravel().tolist()
        if min(wanted) < 0 or max(wanted) >= table.tokens:
            raise InputError(f"a token is outside the embedding of {table.tokens}")
        values = self._read(table.values, wanted)
        if table.bits in FLOATS:
            found = values.view(FLOATS[table.bits])
        else:
            found = self._dequantize(_unpack(values, table.bits), wanted)
        out[...] = found[:, : table.width].reshape(out.shape)

    def _dequantize(self, integers: Array, wanted: Sequence[int]) -> Array:
        """(q - zero_point) * scale, float32 [tokens, width or more], for q uint8 of the same shape."""
        table = self.table
        assert table.scales is not None
        assert table.group_size is not None
        scales = self._read(table.scales, wanted).view(np.float32)
        centres: Array | int = 1 << table.bits - 1
        if table.zero_points:
            points = _unpack(self._read(table.zero_points, wanted), table.bits)
            centres = points[:, : scales.shape[1], None].astype(np.float32)
        # A group may be longer than the row, or its last one not whole.
        size = min(table.group_size, table.width)
        integers = integers[:, : table.width]
        if missing := scales.shape[1] * size - table.width:
            integers = np.pad(integers, ((0, 0), (0, missing)))
        found: Array = integers.reshape(*scales.shape, size).astype(np.float32)
        found -= centres
        found *= scales[:, :, None]
        return found.reshape(len(found), -1)

    def _read(self, part: TablePart, wanted: Sequence[int]) -> Array:
        """A part's bytes, uint8 [tokens, bytes]."""
        size = part.row_bytes
        rows = [os.pread(self._file, size, part.offset + size * token) for token in wanted]
        return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), size)


def _unpack(values: Array, bits: int) -> Array:
    """Bytes [tokens, bytes] as integers of so many bits, the first of two in the low half."""
    if bits == 8:
        return values
    return np.stack([values & 15, values >> 4], axis=-1).reshape(len(values), -1)
