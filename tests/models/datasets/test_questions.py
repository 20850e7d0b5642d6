import numpy as np
import pytest

from models.datasets import IGNORED, View, load_dataset
from models.datasets.questions import examples, guesses, question_split, questions_of
from models.errors import DataError
from runtime.manifest import TextProcessing
from runtime.processing import load_tokenizer

CODE = '''
class Reader:
    def read(self, size, mode="r", *, strict=False):
        """Read."""
        if size > 3 and mode:
            raise OSError("no")
        for line in self.lines():
            total = len(line) + 1
        return total * 2
'''


def test_python_says_what_the_answers_are() -> None:
    answers = {(each.kind, each.context[each.start : each.end]) for each in questions_of(CODE)}
    assert answers == {
        ("default", '"r"'),
        ("first", "size"),
        ("tested", "size > 3 and mode"),
        ("raised", "OSError"),
        ("looped", "self.lines()"),
        ("assigned", "len(line) + 1"),
        ("returned", "total * 2"),
    }


def test_what_has_two_answers_is_not_asked() -> None:
    twice = CODE + "        raise KeyError\n        return 1\n        total = 3\n"
    assert {each.kind for each in questions_of(twice)} == {"default", "first", "tested", "looped"}


@pytest.mark.parametrize("source", ["def broken(:", "x = 1", "def f(a, b=1):\n    '这是'\n    return b"])
def test_what_cannot_be_asked_costs_nothing(source: str) -> None:
    assert all(each.context[each.start : each.end] in ("1", "a") for each in questions_of(source))


def test_a_target_is_the_answers_tokens() -> None:
    dataset = load_dataset("questions")
    split = dataset.validation
    assert split.targets is not None
    tokenizer = load_tokenizer(dataset.files["tokenizer.json"])
    whole = split.targets[:, 0] != IGNORED
    assert whole.mean() > 0.98
    for row in np.flatnonzero(whole)[:50]:
        each, (first, last) = examples()["validation"][row], split.targets[row]
        said = tokenizer.decode(split.inputs["input_ids"][row, first : last + 1].tolist())
        wanted = each.context[each.start : each.end]
        assert "".join(said.split()) == "".join(wanted.split())


def test_an_answer_that_is_cut_off_is_not_scored() -> None:
    dataset, asked = load_dataset("questions"), list(questions_of(CODE))
    short = TextProcessing(max_length=24, token_type_ids=True, pair=True)
    split = question_split(asked, short, dataset.files["tokenizer.json"])
    assert split.targets is not None
    assert split.targets[[each.kind == "returned" for each in asked]].tolist() == [[IGNORED, IGNORED]]


def test_no_context_is_on_both_sides_and_guessing_does_not_help() -> None:
    learnt, asked = examples()["train"], examples()["validation"]
    assert not {each.context for each in learnt} & {each.context for each in asked}
    assert max(hits.mean() for hits in guesses(learnt, asked)) < 0.25


def test_a_model_that_reads_no_pairs_is_refused() -> None:
    with pytest.raises(DataError, match="does not read both"):
        load_dataset("questions", View(processing=TextProcessing(max_length=8)))
