"""How likely a model finds a prompt."""

import math

import numpy as np
import pytest

from runtime.errors import InputError, PromptTooLong
from runtime.model import load_model
from runtime.scoring import prompt_logprobs


def test_each_token_is_scored_given_those_before_it(text_bundle):
    model = load_model(text_bundle)
    prompt = [5, 9, 2, 40]
    first, *reports = prompt_logprobs(model, prompt, 2)
    assert (first.token_id, math.isnan(first.logprob)) == (5, True)
    logits = model.score(np.array([prompt]))[0].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert [report.token_id for report in reports] == prompt[1:]
    for row, report in zip(expected, reports, strict=False):
        assert report.logprob == pytest.approx(row[report.token_id], abs=1e-4)
        assert [token for token, _ in report.top] == np.argsort(-row)[:2].tolist()


@pytest.mark.parametrize(("prompt", "error"), [([1] * 65, PromptTooLong), ([96], InputError)])
def test_what_cannot_be_scored_is_refused(text_bundle, prompt, error):
    with pytest.raises(error):
        prompt_logprobs(load_model(text_bundle), prompt, 0)
