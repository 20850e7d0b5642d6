"""BLEU and ROUGE-L of rows, against the libraries' own figures for whole corpora."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from models.datasets import Split
from models.evaluation import evaluate
from models.text_metrics import bleu, rouge_l, text_rows

ANSWERS = ["the cat sat on the mat today", "a dog runs in the park", "", "two men are here now"]
REFERENCES = ["the cat sat on a mat today", "a dog runs through the park", "a bird", "two men are here now"]


def test_rows_add_up_to_the_corpus_bleu_of_sacrebleu() -> None:
    rows = text_rows(np.array(ANSWERS, object), np.array(REFERENCES, object))
    for chosen in ([0, 1, 2, 3], [3, 0, 0, 1]):
        ours = bleu(rows[chosen])
        wanted = BLEU().corpus_score([ANSWERS[i] for i in chosen], [[REFERENCES[i] for i in chosen]])
        assert ours == pytest.approx(wanted.score / 100)


def test_rouge_l_is_the_mean_f_of_common_subsequences() -> None:
    rows = text_rows(
        np.array(["get name", "", "a b c d"], object), np.array(["get user name", "x", "a c"], object)
    )
    assert rouge_l(rows) == pytest.approx((2 * 2 / 5 + 0 + 2 * 2 / 6) / 3)


def test_texts_are_judged_by_their_references() -> None:
    split = Split({"row": np.arange(4)}, np.zeros((4, 1), np.int64), None, REFERENCES)
    rows = text_rows(np.array(ANSWERS, object), np.array(REFERENCES, object))
    for metric, wanted in (("bleu", bleu(rows)), ("rouge-l", rouge_l(rows))):
        result = evaluate(lambda inputs: {"text": np.array(ANSWERS, object)[inputs["row"]]}, split, metric, 3)
        assert result.value() == wanted
        assert result.higher_is_better


def test_words_are_words_in_any_script() -> None:
    """As torchmetrics has it, these answers would share nothing with themselves, or with others half."""
    texts = np.array(["Größere Füße", "图像 分类 模型", "модель мала"], object)
    assert rouge_l(text_rows(texts, texts)) == 1
    assert rouge_l(text_rows(np.array(["größte"], object), np.array(["größe"], object))) == 0
