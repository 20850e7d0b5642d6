"""Answers in words beside the wanted ones: BLEU and ROUGE-L, from one row of statistics an example.

Both come from libraries: BLEU is sacreBLEU's, ROUGE-L torchmetrics'. Both are in [0, 1] here.
"""

import re
from functools import cache
from typing import Any

import numpy as np

from models.datasets.dataset import Array
from models.errors import MissingExtra

TEXT_METRICS = ("bleu", "rouge-l")
ORDERS = 4


def text_rows(answers: Array, references: Array) -> Array:
    """Two arrays of texts [examples] to float64 [examples, 11].

    A row is n-grams that match and n-grams that there are (of 1 to 4 words each), both lengths in words, and
    the F of ROUGE-L.
    """
    return np.array([_row(*pair) for pair in zip(answers, references, strict=True)], np.float64)


def bleu(rows: Array) -> float:
    """BLEU of all examples together (Papineni et al., 2002), by sacreBLEU (Post, arXiv:1804.08771)."""
    sums = rows[:, : 2 * ORDERS + 2].sum(0).astype(int).tolist()
    matches, totals, lengths = sums[:ORDERS], sums[ORDERS : 2 * ORDERS], sums[2 * ORDERS :]
    return float(_sacrebleu().compute_bleu(matches, totals, *lengths).score) / 100


def rouge_l(rows: Array) -> float:
    """Mean F of the longest common subsequence of words (Lin, ROUGE, 2004)."""
    return float(rows[:, -1].mean())


def _row(answer: str, reference: str) -> list[float]:
    from torchmetrics.functional.text import rouge_score

    found = _sacrebleu().sentence_score(answer, [reference])
    common: Any = rouge_score(answer, reference, normalizer=_words, rouge_keys="rougeL")
    counts = [*found.counts, *found.totals, found.sys_len, found.ref_len]
    return [*counts, float(common["rougeL_fmeasure"])]


def _words(text: str) -> str:
    """Words in any script, in small letters; torchmetrics' own rule knows the 26 letters alone."""
    return re.sub(r"[\W_]+", " ", text.lower())


@cache
def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise MissingExtra("judging texts needs sacrebleu; pip install 'modelpress[compress]'") from None
    # Sentences give their counts alone, so what becomes of a sentence without 4-grams does not matter.
    return BLEU(effective_order=True)
