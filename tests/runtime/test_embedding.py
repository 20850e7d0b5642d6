"""Rows read from a file. That onnxruntime looks up the same is in `tests/compress/test_embedding.py`."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from runtime.embedding import Embedding
from runtime.errors import GraphError, InputError
from runtime.manifest import EmbeddingTable, TablePart

ROWS, WIDTH = 7, 5
HELD = Path("/proc/self/fd")


def written(folder: Path, dtype: type = np.float32) -> tuple[Path, EmbeddingTable, np.ndarray]:
    """A file in which 13 other bytes come before a table of floats."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(dtype)
    path = folder / "rows.bin"
    path.write_bytes(b"x" * 13 + rows.tobytes())
    part = TablePart(offset=13, row_bytes=rows[0].nbytes)
    bits = 8 * rows.itemsize
    return path, EmbeddingTable(tokens=ROWS, width=WIDTH, bits=bits, values=part), rows


def rows_of(embedding: Embedding, tokens: list[list[int]]) -> np.ndarray:
    out = np.full((*np.shape(tokens), embedding.table.width), np.nan, np.float32)
    embedding.look_up(np.array(tokens), out)
    return out


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_token_gets_its_row(tmp_path: Path, dtype: type) -> None:
    path, table, rows = written(tmp_path, dtype)
    tokens = [[6, 0, 3], [3, 3, 5]]
    np.testing.assert_array_equal(rows_of(Embedding(path, table), tokens), rows[tokens].astype(np.float32))


@pytest.mark.parametrize(("group_size", "groups"), [(2, 3), (5, 1), (16, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_integers_in_groups_of_any_size(tmp_path: Path, group_size: int, groups: int, padded: bool) -> None:
    rng, size = np.random.default_rng(1), group_size * groups if padded else WIDTH
    values = rng.integers(0, 256, (ROWS, size), np.uint8)
    scales = rng.standard_normal((ROWS, groups)).astype(np.float32)
    points = rng.integers(0, 256, (ROWS, groups), np.uint8)
    path = tmp_path / "rows.bin"
    path.write_bytes(values.tobytes() + scales.tobytes() + points.tobytes())
    table = EmbeddingTable(
        tokens=ROWS,
        width=WIDTH,
        bits=8,
        group_size=group_size,
        values=TablePart(offset=0, row_bytes=size),
        scales=TablePart(offset=values.nbytes, row_bytes=4 * groups),
        zero_points=TablePart(offset=values.nbytes + scales.nbytes, row_bytes=groups),
    )
    group = np.arange(WIDTH) // group_size
    wanted = (values[:, :WIDTH].astype(np.float32) - points[:, group]) * scales[:, group]
    np.testing.assert_array_equal(rows_of(Embedding(path, table), [list(range(ROWS))])[0], wanted)


@pytest.mark.parametrize("token", [-1, ROWS])
def test_a_token_that_the_table_does_not_have_is_refused(tmp_path: Path, token: int) -> None:
    path, table, _ = written(tmp_path)
    with pytest.raises(InputError, match="outside the embedding of 7"):
        rows_of(Embedding(path, table), [[0, token]])


def test_a_file_that_is_gone_or_too_short_is_refused(tmp_path: Path) -> None:
    path, table, _ = written(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(GraphError, match=r"rows\.bin: too short for its embedding"):
        Embedding(path, table)
    path.unlink()
    with pytest.raises(GraphError, match=r"rows\.bin: cannot be read"):
        Embedding(path, table)


@pytest.mark.skipif(not HELD.is_dir(), reason="there is no list of open files here")
def test_the_file_is_closed_with_it(tmp_path: Path) -> None:
    path, table, _ = written(tmp_path)
    opened = [Embedding(path, table) for _ in range(3)]
    assert held(path) == 3
    del opened[1:]
    gc.collect()
    assert held(path) == 1


def held(path: Path) -> int:
    """How often this process has the file open."""
    links = [link for link in HELD.iterdir() if link.is_symlink()]
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)
