"""Chunks by time, over a small real decoder that is slow by a clock of our own."""

from typing import Any

import numpy as np
import pytest

from runtime.decoder import Decoder
from runtime.pacing import PATIENCE, SHORT, measured_chunk
from runtime.processing import Array
from runtime.scheduler import ALONE, PREFILL_CHUNK, Scheduler
from runtime.session import open_session


class Slow(Decoder):
    """Takes `base` seconds a call and `slope` a token, by its own clock."""

    def __init__(self, *settings: Any, base: float = 0.0, slope: float = 0.0) -> None:
        super().__init__(*settings)
        self.seconds, self.base, self.slope = 0.0, base, slope

    def prefill(self, slot: int, tokens: Array, adapter: Any = None) -> Array:
        self.seconds += self.base + self.slope * len(tokens)
        return super().prefill(slot, tokens, adapter)


@pytest.fixture(scope="module")
def parts(decoder_graph: Any) -> tuple[Any, Any]:
    path, graph = decoder_graph
    return open_session(path, threads=1), graph


@pytest.mark.parametrize(("base", "slope"), [(0.0, 1.0), (0.0, 1e-4), (2.0, 1.0), (1e-3, 1e-3)])
def test_a_chunk_takes_a_bounded_number_of_short_prompts(
    parts: tuple[Any, Any], base: float, slope: float
) -> None:
    decoder = Slow(*parts, 2, base=base, slope=slope)
    chunk = measured_chunk(decoder, lambda: decoder.seconds)
    short, alone = (base + slope * count for count in (SHORT, chunk * ALONE))
    assert alone <= PATIENCE * short
    assert SHORT < chunk * ALONE < decoder.graph.context_length
    assert decoder.lengths.tolist() == [0, 0]


def test_where_a_call_is_mostly_base_chunks_are_as_long_as_they_get(parts: tuple[Any, Any]) -> None:
    decoder = Slow(*parts, 1, base=1.0, slope=1e-3)
    assert measured_chunk(decoder, lambda: decoder.seconds) == PREFILL_CHUNK


def test_a_decoder_without_room_is_not_measured(parts: tuple[Any, Any]) -> None:
    decoder = Slow(*parts, 1, SHORT, slope=1.0)
    assert measured_chunk(decoder, lambda: decoder.seconds) == PREFILL_CHUNK
    assert decoder.seconds == 0


def test_memory_stays_within_the_budget_while_measuring(parts: tuple[Any, Any]) -> None:
    decoder = Slow(*parts, 1, 40, slope=1.0)
    measured_chunk(decoder, lambda: decoder.seconds)
    assert int(decoder.cache._touched.sum()) == 0


def test_a_measured_scheduler_answers_as_any_other(parts: tuple[Any, Any]) -> None:
    decoder = Slow(*parts, 1, slope=1.0)
    wanted = Decoder(*parts, 1).prefill(0, np.arange(60))
    scheduler = Scheduler(decoder, prefill_chunk=measured_chunk(decoder, lambda: decoder.seconds))
    chunk = scheduler._chunk * ALONE
    for start in range(0, 60, chunk):
        logits = decoder.prefill(0, np.arange(60)[start : start + chunk])
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
