"""The choice of graphs: what each call runs on, within a budget of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.phases.choice import choose

ALONE = {1: 1.0, 8: 8.0, 128: 60.0}
TOGETHER = {1: 1.5, 8: 4.0, 128: 20.0}
SIZES = {"int4": 100, "int8": 160}


def test_each_size_of_a_call_runs_on_its_fastest_graph() -> None:
    found = choose({"int4": ALONE, "int8": TOGETHER}, SIZES, 300, 0.1)
    assert found == [(1, "int4"), (8, "int8")]


def test_where_both_do_not_fit_the_better_one_runs_everything() -> None:
    assert choose({"int4": ALONE, "int8": TOGETHER}, SIZES, 200, 0.1) == [(1, "int8")]
    assert choose({"int4": ALONE, "int8": TOGETHER}, SIZES, 150, 0.1) == [(1, "int4")]
    assert choose({"int4": ALONE, "int8": TOGETHER}, SIZES, 10, 0.1) == [(1, "int4")]


def test_a_second_graph_must_be_worth_it() -> None:
    barely = {1: 1.0, 8: 7.9, 128: 59.0}
    assert len(choose({"int4": ALONE, "int8": barely}, SIZES, 300, 0.1)) == 1


def test_a_second_graph_is_worth_it_for_one_size_of_call() -> None:
    """A single sequence is one size of many, and all of a single user's."""
    sizes = (1, 2, 4, 8, 16, 32, 64, 128)
    many = {n: 1.0 for n in sizes}
    alone = {n: 0.7 if n == 1 else 1.2 for n in sizes}
    assert choose({"int4": alone, "int8": many}, SIZES, 300, 0.2) == [(1, "int4"), (2, "int8")]


times = st.fixed_dictionaries({n: st.floats(0.001, 10) for n in (1, 2, 8, 64)})


@given(
    found=st.dictionaries(st.sampled_from("abcd"), times, min_size=1),
    sizes=st.fixed_dictionaries({name: st.integers(1, 100) for name in "abcd"}),
    budget=st.integers(1, 400),
)
def test_a_schedule_covers_every_call_within_the_budget(found: dict, sizes: dict, budget: int) -> None:
    sizes = {name: sizes[name] for name in found}
    schedule = choose(found, sizes, budget, 0.1)
    starts, names = zip(*schedule, strict=True)
    assert starts[0] == 1
    assert list(starts) == sorted(set(starts))
    kept = set(names)
    fits = sum(sizes[name] for name in kept) <= budget
    assert fits or kept == {min(sizes, key=lambda name: sizes[name])}


@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_two_graphs_that_each_win_a_size_are_both_kept(gain: float) -> None:
    assert choose({"a": {1: 1.0, 2: 3.0}, "b": {1: 3.0, 2: 1.0}}, {"a": 1, "b": 1}, 9, gain) == [
        (1, "a"),
        (2, "b"),
    ]
