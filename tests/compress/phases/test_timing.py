"""When a size of a call has been timed often enough."""

import pytest

from compress.phases.timing import CLEARLY, LEAST_ROUNDS, is_settled

FAST, SLOW = {"a": 1.0, "b": 1.1 * CLEARLY}, {"a": 1.0, "b": 1.01}


@pytest.mark.parametrize(
    ("rounds", "settled"),
    [
        ([], False),
        ([FAST] * (LEAST_ROUNDS - 1), False),
        ([FAST] * LEAST_ROUNDS, True),
        ([FAST, SLOW], False),
        ([FAST, {"a": 1.1 * CLEARLY, "b": 1.0}], False),
        ([{"a": 1.0}] * LEAST_ROUNDS, True),
    ],
)
def test_one_graph_has_to_win_every_round_clearly(rounds: list[dict[str, float]], settled: bool) -> None:
    assert is_settled(rounds) == settled
