"""The cost model: what was measured, and what follows from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cost import MAX_ELEMENTS, MAX_ROWS, CostModel, measure


def test_nothing_is_known_before_anything_has_run():
    assert CostModel().seconds(1) == 0
    assert CostModel().best_rows() == 8


def test_a_measured_size_costs_what_it_cost():
    cost = CostModel()
    cost.observe(4, 16, 0.5)
    assert cost.seconds(4, 16) == pytest.approx(0.5)
    assert cost.seconds(8, 16) == pytest.approx(1.0)  # from the nearest cell, per element


def test_one_hiccup_moves_the_average_by_a_fifth():
    cost = CostModel()
    cost.observe(1, 1, 1.0)
    cost.observe(1, 1, 11.0)
    assert cost.seconds(1) == pytest.approx(3.0)


def test_the_best_size_is_where_rows_are_cheapest():
    cost = CostModel()
    for rows, seconds in ((1, 1.0), (2, 1.1), (4, 1.2), (8, 2.4), (16, 6.0)):
        cost.observe(rows, 1, seconds)
    assert cost.best_rows() == 4


def test_the_size_above_the_largest_that_paid_is_tried():
    cost = CostModel()
    for rows, seconds in ((1, 1.0), (2, 1.1)):
        cost.observe(rows, 1, seconds)
    assert cost.best_rows() == 4


def test_measuring_stops_where_rows_stop_paying():
    cost, ran = CostModel(), []

    def run(rows: int) -> float:
        ran.append(rows)
        return 0.001 * max(4, rows**2 / 4)

    measure(cost, run, length=1, budget=10)
    assert max(ran) == 8
    assert cost.best_rows() == 4


def test_measuring_stops_when_the_time_is_up():
    ran = []
    measure(CostModel(), lambda rows: ran.append(rows) or 1.0, length=1, budget=1)
    assert max(ran) == 1


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 5000), st.floats(1e-6, 10)), max_size=20),
    st.integers(1, 2000),
    st.integers(1, 5000),
)
def test_any_history_gives_a_time_and_a_bounded_batch(history, rows, length):
    cost = CostModel()
    for run in history:
        cost.observe(*run)
    assert cost.seconds(rows, length) >= 0
    assert 1 <= cost.best_rows(length) <= MAX_ROWS
    assert cost.best_rows(length) * length <= max(2 * MAX_ELEMENTS, length)


def test_a_run_that_was_held_up_says_nothing_of_the_work_and_a_slower_machine_does():
    cost = CostModel()
    cost.observe(4, 1, 0.001)
    for _ in range(5):
        cost.observe(4, 1, 0.1)
    assert cost.work(4) < 0.0012 < cost.seconds(4)
    for _ in range(500):
        cost.observe(4, 1, 0.1)
    assert cost.work(4) == pytest.approx(0.1, rel=0.05)


def test_what_was_settled_stays_and_counts_in_elements():
    cost = CostModel()
    for rows, seconds in ((1, 1.0), (2, 1.6), (4, 2.45), (8, 4.8), (16, 9.8)):
        cost.observe(rows, 16, seconds)
    cost.settle(16)
    cost.observe(64, 16, 0.001)
    # Four rows cost 0.6125 each, nearly the least of 0.6.
    assert [cost.best_rows(length) for length in (16, 32, 64, 1000)] == [4, 2, 1, 1]
