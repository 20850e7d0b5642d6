import resource
from pathlib import Path

import pytest

from models.errors import StorageError
from models.storage import code_digest, digest, home, versions, write_atomically


def test_a_file_is_replaced_whole_and_no_other_is_left(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_refuses_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"inner: cannot be written: .*; free some space"):
        write_atomically(tmp_path / "file" / "inner", b"")


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write_atomically(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_digests_tell_lists_of_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a") == digest(b"a")


def test_code_digests_follow_the_source() -> None:
    assert code_digest(["models.ngram"]) != code_digest(["models.batches"])


def test_versions_name_what_is_missing() -> None:
    found = versions(["numpy", "no-such-distribution"])
    assert found["numpy"]
    assert found["no-such-distribution"] == ""


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("MODELPRESS_HOME")
    assert home() == Path.home() / ".cache" / "modelpress"
