"""What a text most likely goes on with: its next piece, from a language model that reads it whole.

It generates nothing: that is a decoder's, which keeps what it has read. A piece need not be a whole word, nor
a whole character.
"""

from typing import Any

import numpy as np
from tokenizers import Tokenizer

from runtime.processing import Array, softmax

SHOWN = 10


def rank_next(logits: Array, attention_mask: Array, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Logits [batch, sequence, vocabulary] as one `{next: [{text, probability}]}` a row, the likeliest first.

    `attention_mask` int64 [batch, sequence] says where each text ends.
    """
    rows = np.arange(len(logits))
    probabilities = softmax(logits[rows, attention_mask.sum(1) - 1])
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :SHOWN]
    return [
        {"next": _named(of_row, tokens, tokenizer)}
        for of_row, tokens in zip(probabilities, best, strict=True)
    ]


def _named(probabilities: Array, tokens: Array, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    texts = tokenizer.decode_batch([[int(token)] for token in tokens], skip_special_tokens=False)
    return [
        {"text": text, "probability": float(probabilities[token])}
        for text, token in zip(texts, tokens, strict=True)
    ]
