from itertools import takewhile

import pytest
from pydantic import ValidationError

from loadtests.corpus import Generated, prompts


def words(**keys):
    return [prompt.split() for prompt in prompts(Generated.model_validate(keys))]


def test_prompts_have_the_wanted_lengths_and_follow_the_seed():
    assert {len(prompt) for prompt in words(words=12)} == {12}
    assert words(seed=1) == words(seed=1) != words(seed=2)
    lengths = {len(p) for p in words(words={"kind": "uniform", "low": 5, "high": 20}, count=200)}
    assert min(lengths) >= 5
    assert max(lengths) <= 20
    assert len(lengths) > 10


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_shared_part_is_the_same_in_all_prompts(share):
    found = words(words=20, count=50, shared_prefix=share)
    common = list(takewhile(lambda column: len(set(column)) == 1, zip(*found, strict=True)))
    assert len(common) == 20 * share
    assert len({tuple(prompt) for prompt in found}) == (1 if share == 1 else 50)


def test_a_text_of_ones_own_is_where_the_words_come_from(tmp_path):
    (tmp_path / "text.txt").write_text("one two three", encoding="utf-8")
    found = words(words=5, text=str(tmp_path / "text.txt"))
    assert {word for prompt in found for word in prompt} == {"one", "two", "three"}


def test_a_text_without_words_or_without_a_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    for name, complaint in (("empty.txt", "holds no words"), ("gone.txt", "cannot read")):
        with pytest.raises(ValidationError, match=complaint):
            Generated(text=tmp_path / name)
