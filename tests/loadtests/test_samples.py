import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtests.columns import Columns
from loadtests.recording import Table
from loadtests.sample import Manner, Sample
from loadtests.samples import concatenate
from tests.loadtests.recorded import columns

tokens = st.lists(st.floats(0, 1), max_size=6).map(sorted).map(tuple)
sample = st.builds(
    Sample,
    request=st.integers(0, 3),
    planned=st.integers(0, 100_000).map(lambda tick: tick / 1000),
    sent=st.floats(100, 101),
    ended=st.floats(101, 200),
    error=st.sampled_from([None, None, "timeout", "http_500"]),
    detail=st.just("?"),
    tokens=st.one_of(st.none(), st.integers(0, 9)),
    token_times=tokens,
    row=st.integers(0, 1000),
    manner=st.sampled_from(list(Manner)),
)
several = st.lists(sample, min_size=1, max_size=12)


def missing(value):
    return None if math.isnan(value) else value


@given(several)
def test_columns_say_what_the_samples_said(samples):
    found = columns(samples)
    ordered = sorted(samples, key=lambda one: one.planned)
    assert found.row.tolist() == [one.row for one in ordered]
    np.testing.assert_allclose(found.latency_ms, [one.latency_ms for one in ordered], atol=0.002)
    np.testing.assert_allclose(found.lag_ms, [one.lag_ms for one in ordered], atol=0.002)
    gaps = [gap for one in ordered for gap in one.gaps_ms]
    np.testing.assert_allclose(found.gaps_ms, gaps, atol=0.002)
    errors = [found.kinds[kind] if kind >= 0 else None for kind in found.error]
    assert errors == [one.error for one in ordered]
    for mine, one in zip(found.tpot_ms, ordered, strict=True):
        assert (missing(mine) is None) == (one.tpot_ms is None)


@given(several)
def test_a_document_gives_the_samples_back(samples):
    found = columns(samples)
    again = Columns.model_validate_json(Columns.of(found).model_dump_json()).samples()
    for name in ("row", "request", "error", "gaps_ms", "gap_counts", "latency_ms", "ttft_ms", "tokens"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.kinds == found.kinds


@given(several, st.integers(1, 4))
def test_parts_put_together_are_the_whole(samples, count):
    for place, one in enumerate(samples):
        one.row = place
        one.planned = float(place)
    whole = columns(samples)
    joined = concatenate([columns(samples[start::count]) for start in range(min(count, len(samples)))])
    for name in ("row", "latency_ms", "gaps_ms", "gap_counts", "tokens"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    kinds = [joined.kinds[kind] if kind >= 0 else None for kind in joined.error]
    assert kinds == [one.error for one in samples]


@given(several)
def test_taking_some_takes_their_gaps_along(samples):
    found = columns(samples)
    some = found.take(found.good)
    assert len(some.gaps_ms) == some.gap_counts.sum()
    assert some.row.tolist() == found.row[found.good].tolist()


def test_memory_is_taken_before_the_first_request_and_not_after():
    """A hundred thousand requests through a table of that capacity: not one of its columns grows."""
    table = Table(100_000)
    sizes = {name: len(column) for name, column in table._columns.items()}
    one = Sample(0, 1.0, sent=1.0, ended=2.0)
    for _ in range(100_000):
        table.append(one)
    assert {name: len(column) for name, column in table._columns.items()} == sizes
    per_request = sum(column.itemsize for column in table._columns.values())
    assert per_request < 64


def test_a_table_grows_where_the_number_of_requests_was_not_known():
    table = Table(1)
    for row in range(100):
        table.append(Sample(0, float(row), sent=float(row), ended=float(row + 1), row=row))
    assert table.samples(0.0).row.tolist() == list(range(100))
