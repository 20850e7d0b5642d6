"""What an alias may say, and whom it chooses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alias import Target, choose, read_aliases
from service.errors import ServiceError

TARGETS = (Target(model="a", weight=3), Target(model="b", weight=1))


@given(st.floats(0, 1, exclude_max=True))
def test_a_target_is_chosen_by_its_weight(point):
    assert choose(TARGETS, lambda model: True, lambda: point) == ("a" if point < 0.75 else "b")


def test_one_that_is_not_usable_is_left_out():
    assert choose(TARGETS, lambda model: model == "b", lambda: 0.0) == "b"


def test_where_none_is_usable_the_first_is_asked():
    assert choose(TARGETS, lambda model: False) == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ('{"digits": {}}', "digits.targets"),
        ('{"digits": {"targets": []}}', "at least 1"),
        ('{"digits": {"targets": [{"model": "a"}], "shadows": 1}}', "digits.shadows"),
        ('{"digits": {"targets": [{"model": "a", "weight": -1}]}}', "weight"),
        ('{"digits": {"targets": [{"model": "a", "weight": 1e999}]}}', "finite"),
    ],
)
def test_a_wrong_file_says_where(tmp_path, text, message):
    (tmp_path / "aliases.json").write_text(text)
    with pytest.raises(ServiceError, match=message):
        read_aliases(tmp_path / "aliases.json")


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ServiceError, match="No such file"):
        read_aliases(tmp_path / "nothing")
