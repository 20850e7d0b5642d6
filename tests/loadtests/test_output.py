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
    for path in (tmp_path, tmp_path / "missing" / "result.json"):
        with pytest.raises(InvalidOption, match="--html"):
            check_writable(path, "--html")
    with pytest.raises(InvalidOption, match="No such file"):
        write("text", tmp_path / "missing" / "result.json")
