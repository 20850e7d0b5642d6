"""How likely a text model finds a prompt, token by token: what `echo` with `logprobs` reports.

It runs the graph once over the whole prompt, beside the scheduler and without its cache.
"""

import math
from collections.abc import Sequence

import numpy as np

from runtime.errors import PromptTooLong
from runtime.logprobs import TokenLogprob, logprobs
from runtime.model import TextModel
from runtime.request import check_tokens

# 512 MiB of float32 logits.
MAX_LOGITS = 2**27
# Rows at a time: the arithmetic makes two more copies of them.
ROWS = 64


def prompt_logprobs(
    model: TextModel, prompt: Sequence[int], top: int, adapter: str | None = None
) -> list[TokenLogprob]:
    """One report for each token of `prompt`, as the model finds it with `adapter`; NaN for the first one.

    Raises PromptTooLong, or InputError for a token that does not exist.
    """
    _check(model, prompt)
    tokens = np.array(prompt)
    logits = model.score(tokens[None], adapter=adapter)[0, :-1]
    reports = [TokenLogprob(int(prompt[0]), math.nan)]
    for start in range(0, len(logits), ROWS):
        rows = logits[start : start + ROWS]
        reports += logprobs(rows, tokens[start + 1 : start + 1 + len(rows)], [top] * len(rows))
    return reports


def _check(model: TextModel, prompt: Sequence[int]) -> None:
    vocabulary = model.graph.vocab_size
    limit = min(model.graph.context_length, MAX_LOGITS // vocabulary)
    if len(prompt) > limit:
        raise PromptTooLong(f"the prompt has {len(prompt)} tokens; at most {limit} can be scored at once")
    check_tokens(prompt, vocabulary)
