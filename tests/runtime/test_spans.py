from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from runtime.errors import InputError
from runtime.manifest import TextProcessing
from runtime.spans import MOST_TOKENS, answer_questions, best_spans, context_tokens, encode_questions

PROCESSING = TextProcessing(max_length=9, token_type_ids=True, pair=True)
ITEMS = [
    {"question": "who", "context": "ada  lives here"},
    {"question": "who lives", "context": "这是 ada"},
]


@pytest.fixture
def tokenizer() -> Tokenizer:
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "who": 4, "ada": 5, "lives": 6, "here": 7}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def pointing(*spans: tuple[int, int], length: int = 8) -> Any:
    """Logits that want each row's span."""
    logits = np.zeros((len(spans), length, 2), np.float32)
    for row, (begin, end) in enumerate(spans):
        logits[row, begin, 0] = logits[row, end, 1] = 5
    return logits


def test_a_question_and_its_context_are_one_sequence(tokenizer: Tokenizer) -> None:
    inputs = encode_questions(tokenizer, ITEMS, PROCESSING)
    assert inputs["input_ids"].tolist() == [[2, 4, 3, 5, 6, 7, 3], [2, 4, 6, 3, 1, 5, 3]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]]
    assert context_tokens(inputs).tolist() == [
        [False] * 3 + [True] * 3 + [False],
        [False] * 4 + [True] * 2 + [False],
    ]


def test_a_context_is_cut_and_a_question_is_not(tokenizer: Tokenizer) -> None:
    (ids,) = encode_questions(tokenizer, [ITEMS[0] | {"context": "ada " * 20}], PROCESSING)["input_ids"]
    assert ids.tolist() == [2, 4, 3, *[5] * 5, 3]


def test_an_answer_is_what_the_context_says_there(tokenizer: Tokenizer) -> None:
    answers = answer_questions(pointing((4, 5), (4, 4), length=7), tokenizer, ITEMS, PROCESSING)
    assert [(each["answer"], each["start"], each["end"]) for each in answers] == [
        ("lives here", 5, 15),
        ("这是", 0, 2),
    ]


def test_a_context_without_a_token_is_refused(tokenizer: Tokenizer) -> None:
    """It gave an answer from nowhere, with a probability that is no number."""
    tokenizer.normalizer = normalizers.BertNormalizer()
    with pytest.raises(InputError, match="item 1: the context has no word"):
        encode_questions(tokenizer, [ITEMS[0], {"question": "who", "context": "\x07"}], PROCESSING)


def test_no_answer_comes_from_outside_the_context() -> None:
    allowed = np.array([[False, False, True, True, False, False, False, False]])
    spans, probabilities = best_spans(pointing((0, 7)), allowed)
    assert spans[0].tolist() in ([2, 2], [2, 3], [3, 3])
    assert probabilities[0] == pytest.approx(0.25)


def test_an_end_is_not_before_its_begin() -> None:
    spans, _ = best_spans(pointing((5, 3)), np.ones((1, 8), bool))
    assert spans[0, 0] <= spans[0, 1]


def test_the_best_pair_is_found_and_an_answer_has_a_longest_length() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 60, 2))
    allowed = np.ones((5, 60), bool)
    spans, _ = best_spans(logits, allowed)
    for row, span in zip(logits, spans, strict=True):
        pairs = [(b, e) for b in range(60) for e in range(b, min(60, b + MOST_TOKENS))]
        assert tuple(span) == max(pairs, key=lambda pair: row[pair[0], 0] + row[pair[1], 1])


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "the batch is empty"),
        ([{"question": "who", "context": "  "}], "the context is empty"),
        ([ITEMS[0], {"question": "", "context": "ada"}], "item 1: the question is empty"),
        (["who"], "want"),
        ([{"question": "who"}], "want"),
        ([{"question": "who " * 9, "context": "ada"}], "no room for context"),
    ],
)
def test_what_is_no_question_is_refused(tokenizer: Tokenizer, items: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        encode_questions(tokenizer, items, PROCESSING)
