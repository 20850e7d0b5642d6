"""Questions about a text, answered by a piece of it: pairs to tensors, and a span's logits to the answer.

Devlin et al. (arXiv:1810.04805), section 4.2. Question and context are read as one sequence, told apart by
their token types; a token may begin or end the answer only if it is the context's. What of a context does not
fit is cut off, and no answer can come from there. It runs no graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from runtime.errors import InputError
from runtime.manifest import TextProcessing
from runtime.processing import Array, padded, softmax

FIELDS = ("question", "context")
# Transformers' pipeline allows 15, for names and dates; answers here may be sentences.
MOST_TOKENS = 40
_CONTEXT = 1


def encode_questions(
    tokenizer: Tokenizer, items: Sequence[Any], processing: TextProcessing
) -> dict[str, Array]:
    """`{question, context}` items as input_ids, attention_mask and token_type_ids, int64 [batch, sequence].

    Token types are 0 for the question and 1 for the context. A context is cut so that both fit
    `processing.max_length`. Raises InputError for an empty batch, an item that lacks a part or has an empty
    one, a question that leaves its context no room, and a context without a single token.
    """
    if not items:
        raise InputError("the batch is empty; send at least one question and its context")
    return padded(encodings(tokenizer, items, processing), processing)


def encodings(tokenizer: Tokenizer, items: Sequence[Any], processing: TextProcessing) -> list[Encoding]:
    """The pairs as the tokenizer has them, unpadded; its second sequence is the context. Raises as above."""
    pairs = [_pair(item, _where(index, items)) for index, item in enumerate(items)]
    if (tokenizer.truncation or {}).get("max_length") != processing.max_length:
        tokenizer.enable_truncation(processing.max_length, strategy="only_second")
    try:
        encoded = list(tokenizer.encode_batch(pairs))
    except Exception:  # tokenizers has no kind of its own for a second part that cannot be cut enough
        raise InputError(
            f"a question leaves no room for context in {processing.max_length} tokens; ask a shorter one"
        ) from None
    for index, encoding in enumerate(encoded):
        # A tokenizer drops control characters, say.
        if _CONTEXT not in encoding.sequence_ids:
            raise InputError(f"{_where(index, items)}the context has no word that this model reads")
    return encoded


def answer_questions(
    logits: Array, tokenizer: Tokenizer, items: Sequence[Any], processing: TextProcessing
) -> list[dict[str, Any]]:
    """Logits [batch, sequence, 2] (a begin's and an end's) as `{answer, start, end, probability}` a row.

    `answer` is `context[start:end]`, in characters; `probability` is that of this begin and this end among
    all of the context's tokens.
    """
    pairs = encodings(tokenizer, items, processing)
    allowed: Array = np.zeros(logits.shape[:2], bool)
    for row, encoding in enumerate(pairs):
        places = [part == _CONTEXT for part in encoding.sequence_ids]
        allowed[row, : len(places)] = places
    spans, probabilities = best_spans(logits, allowed)
    return [
        _answer(encoding, item["context"], span.tolist(), float(probability))
        for encoding, item, span, probability in zip(pairs, items, spans, probabilities, strict=True)
    ]


def best_spans(logits: Array, allowed: Array) -> tuple[Array, Array]:
    """The likeliest span of each row, int64 [batch, 2] (first and last token), and its probability, [batch].

    Begin and end are independent; the end is no earlier than the begin, within `MOST_TOKENS`. `allowed`,
    bool [batch, sequence], says which tokens count, at least one a row.
    """
    masked = np.where(allowed[..., None], logits, -np.inf).astype(np.float64)
    begins, ends = softmax(masked.transpose(0, 2, 1)).transpose(1, 0, 2)
    length = logits.shape[1]
    ahead = np.arange(length) - np.arange(length)[:, None]
    possible = (ahead >= 0) & (ahead < MOST_TOKENS)
    joint = np.where(possible, begins[:, :, None] * ends[:, None, :], -1).reshape(len(logits), -1)
    best = joint.argmax(-1)
    spans = np.stack(np.divmod(best, length), -1)
    return spans, joint[np.arange(len(best)), best]


def context_tokens(inputs: Mapping[str, Array]) -> Array:
    """Which tokens are the context's, bool [batch, sequence]: type 1, without the one that ends the pair."""
    types = inputs["token_type_ids"] * inputs["attention_mask"]
    last = inputs["attention_mask"].sum(1) - 1
    inside: Array = (types == _CONTEXT) & (np.arange(types.shape[1]) < last[:, None])
    return inside


def _where(index: int, items: Sequence[Any]) -> str:
    return f"item {index}: " if len(items) > 1 else ""


def _pair(item: Any, where: str) -> tuple[str, str]:
    if not isinstance(item, Mapping) or item.keys() != set(FIELDS):
        raise InputError(f'{where}want {{"question": ..., "context": ...}}')
    for name in FIELDS:
        if not isinstance(item[name], str) or not item[name].strip():
            raise InputError(f"{where}the {name} is empty; send at least one word")
    return item["question"], item["context"]


def _answer(encoding: Encoding, context: str, span: list[int], probability: float) -> dict[str, Any]:
    start, end = encoding.offsets[span[0]][0], encoding.offsets[span[1]][1]
    return {"answer": context[start:end], "start": start, "end": end, "probability": probability}
