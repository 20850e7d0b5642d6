import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compress.cache import RECORD, run_stage
from compress.weights import save_weights
from models.errors import StorageError
from models.sources.source import SourceModel


def maker(calls: list[int], text: str = "made") -> Any:
    def make(folder: Path) -> dict[str, Any]:
        calls.append(1)
        (folder / "file.txt").write_text(text)
        return {"size": len(text)}

    return make


def test_the_same_inputs_are_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []
    first = run_stage("step", {"a": 1}, maker(calls), tmp_path)
    again = run_stage("step", {"a": 1}, maker(calls), tmp_path)
    assert (first.cached, again.cached, len(calls)) == (False, True, 1)
    assert again.figures == {"size": 4}
    assert (again.folder / "file.txt").read_text() == "made"


@pytest.mark.parametrize("other", [{"a": 2}, {"a": 1, "b": None}, {"a": [1]}])
def test_other_inputs_are_another_stage(tmp_path: Path, other: dict[str, Any]) -> None:
    calls: list[int] = []
    run_stage("step", {"a": 1}, maker(calls), tmp_path)
    run_stage("step", other, maker(calls), tmp_path)
    run_stage("other", {"a": 1}, maker(calls), tmp_path)
    assert len(calls) == 3


def test_a_failed_stage_is_not_cached_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        run_stage("step", {}, fail, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not run_stage("step", {}, maker([]), tmp_path).cached


@pytest.mark.parametrize("damage", ["of another kind", "truncate", "delete", "record"])
def test_a_damaged_stage_is_made_again(tmp_path: Path, damage: str) -> None:
    stage = run_stage("step", {}, maker([]), tmp_path)
    if damage == "truncate":
        (stage.folder / "file.txt").write_text("mad")
    elif damage == "delete":
        (stage.folder / "file.txt").unlink()
    elif damage == "of another kind":
        (stage.folder / RECORD).write_text(json.dumps({"key": stage.key, "files": []}))
    else:
        (stage.folder / RECORD).write_text(json.dumps({"key": stage.key})[:20])
    again = run_stage("step", {}, maker([]), tmp_path)
    assert not again.cached
    assert (again.folder / "file.txt").read_text() == "made"


KILLED_HALFWAY = """
import sys, time
from pathlib import Path
from compress.cache import run_stage

def first(folder):
    (folder / "a").write_text("a")
    return {}

def second(folder):
    (folder / "half").write_text("half")
    print("half-way", flush=True)
    time.sleep(60)
    return {}

root = Path(sys.argv[1])
run_stage("first", {}, first, root)
run_stage("second", {}, second, root)
"""


def test_after_kill_9_only_the_unfinished_stage_is_made_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_HALFWAY, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half-way\n"
        os.kill(process.pid, signal.SIGKILL)
    calls: list[int] = []
    assert run_stage("first", {}, maker(calls), tmp_path).cached
    second = run_stage("second", {}, maker(calls), tmp_path)
    assert not second.cached
    assert not (second.folder / "half").exists()
    assert len(calls) == 1


def test_of_two_runs_at_once_the_first_ones_stage_stays(tmp_path: Path) -> None:
    """The other run may have begun to read it."""

    def overtaken(folder: Path) -> dict[str, Any]:
        other = run_stage("step", {}, maker([]), tmp_path)
        inodes.append((other.folder / "file.txt").stat().st_ino)
        return maker([], "made later")(folder)

    inodes: list[int] = []
    stage = run_stage("step", {}, overtaken, tmp_path)
    assert stage.figures == {"size": 4}
    assert (stage.folder / "file.txt").read_text() == "made"
    assert [(stage.folder / "file.txt").stat().st_ino] == inodes
    assert [path.name for path in tmp_path.iterdir()] == [stage.folder.name]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A file that grows further fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["file", "weights"])
def test_a_full_disk_is_told_with_its_place(tmp_path: Path, own: SourceModel, kind: str) -> None:
    def make(folder: Path) -> dict[str, Any]:
        if kind == "weights":
            save_weights(own, folder)
        else:
            (folder / "file").write_bytes(b"x" * 10_000)
        return {}

    root = tmp_path / "stages"
    with (
        files_of_at_most(1000),
        pytest.raises(StorageError, match=r"(?i)stages: .*too large.*; free some space"),
    ):
        run_stage("step", {}, make, root)
    assert list(root.iterdir()) == []
