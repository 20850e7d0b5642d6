import numpy as np
import pytest

from compress.errors import StepError
from compress.measure import compare
from models.evaluation import Evaluation

LOSSES = np.tile([20.0, 10.0], (20, 1))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_metric_that_is_not_finite_is_no_evidence(broken: float) -> None:
    good, bad = Evaluation("perplexity", LOSSES), Evaluation("perplexity", LOSSES * [broken, 1])
    with pytest.raises(StepError, match=r"the perplexity of the result is (nan|inf) over 20 examples"):
        compare(bad, good)
    with pytest.raises(StepError, match="perplexity of the original"):
        compare(good, bad)


def test_vectors_that_all_look_alike_have_no_rank_to_be_judged_by() -> None:
    wanted = np.arange(20.0)
    alike, apart = (Evaluation("spearman", np.stack([each, wanted], 1)) for each in (np.ones(20), wanted))
    with pytest.raises(StepError, match="spearman of the result is nan"):
        compare(alike, apart)


def test_few_examples_have_an_interval_all_the_same() -> None:
    """Of three pairs, one resample in nine is of a single pair."""
    scores = np.array([[0.1, 1.0], [0.5, 2.0], [0.9, 3.0]])
    quality = compare(Evaluation("spearman", scores), Evaluation("spearman", scores))
    assert quality.value == pytest.approx(1)
    assert quality.drop_interval.low == quality.drop_interval.high == 0
    assert type(quality).model_validate_json(quality.model_dump_json()) == quality
