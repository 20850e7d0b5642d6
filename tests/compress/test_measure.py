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


def errors(unexplained: list[float]) -> Evaluation:
    """Of reconstructions that leave so much of a variation of 1 unexplained."""
    return Evaluation("reconstruction-error", np.array([[each, 1.0] for each in unexplained]))


def test_an_original_at_0_is_no_baseline_where_lower_is_better() -> None:
    perfect, worse = errors([0, 0, 0]), errors([0.5, 0, 0.1])
    with pytest.raises(StepError, match="no baseline: the reconstruction-error of the original is 0 over 3 "):
        compare(worse, perfect)
    assert compare(perfect, perfect).drop == 0
    assert compare(perfect, worse).drop == -1


def test_resamples_without_a_baseline_are_left_out() -> None:
    """One in four of two rows is of the first alone, which the original reconstructs perfectly."""
    quality = compare(errors([0.2, 0.2]), errors([0, 0.1]))
    assert quality.drop == pytest.approx(3)
    assert (quality.drop_interval.low, quality.drop_interval.high) == pytest.approx((1, 3))
