import os

import pytest

from loadtests.errors import InvalidOption
from loadtests.output import check_writable, write


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old", encoding="utf-8")
    write("new", path)
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    check_writable(tmp_path / "result.json")
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    for path in (tmp_path, tmp_path / "missing" / "result.json", circle, tmp_path / ("long" * 100)):
        with pytest.raises(InvalidOption, match="--html"):
            check_writable(path, "--html")
    with pytest.raises(InvalidOption, match="No such file"):
        write("text", tmp_path / "missing" / "result.json")


def test_a_link_keeps_leading_where_it_did(tmp_path):
    link, path = tmp_path / "latest.json", tmp_path / "result.json"
    link.symlink_to(path)
    for text in ("first", "second"):
        write(text, link)
        assert link.is_symlink()
        assert path.read_text(encoding="utf-8") == text


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    """As `/dev/null` and `/dev/stdout` are, which a rename would take away from everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_writable(pipe)
        write("text", pipe)
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
