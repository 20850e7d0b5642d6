import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from runtime.manifest import TextProcessing
from runtime.next_tokens import SHOWN, rank_next
from runtime.processing import encode_texts

WORDS = [f"w{number}" for number in range(SHOWN + 2)]


@pytest.fixture
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_the_answer_is_of_each_text_s_own_last_token(tokenizer: Tokenizer) -> None:
    logits = np.zeros((2, 3, len(WORDS)), np.float32)
    logits[0, 1, 4] = logits[1, 2, 5] = 3
    logits[0, 2, 7] = 9  # padding of the first text
    first, second = rank_next(logits, np.array([[1, 1, 0], [1, 1, 1]]), tokenizer)
    expected = np.exp(3) / (np.exp(3) + len(WORDS) - 1)
    assert first["next"][0] == {"text": "w4", "probability": pytest.approx(expected)}
    assert second["next"][0] == {"text": "w5", "probability": pytest.approx(expected)}
    assert len(first["next"]) == SHOWN


def test_what_follows_is_ordered_by_probability(tokenizer: Tokenizer) -> None:
    logits = np.arange(len(WORDS), dtype=np.float32)[None, None]
    found = rank_next(logits, np.array([[1]]), tokenizer)[0]["next"]
    assert [each["text"] for each in found] == WORDS[::-1][:SHOWN]
    assert [each["probability"] for each in found] == sorted(
        (each["probability"] for each in found), reverse=True
    )


def test_of_a_long_text_the_end_is_kept_where_that_is_asked_for(tokenizer: Tokenizer) -> None:
    processing = TextProcessing(max_length=2, keep="last")
    encoded = encode_texts(tokenizer, ["w1 w2 w3", "w4"], processing)
    assert encoded["input_ids"].tolist() == [[2, 3], [4, 0]]
    assert encoded["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert "keep" not in TextProcessing(max_length=2).model_dump()
