from typing import Any

import numpy as np
import pytest
import torch

from runtime.decoder import Decoder, score
from runtime.errors import CapacityError, PromptTooLong
from runtime.session import open_session

RNG = np.random.default_rng(0)


def tokens(count: int) -> list[int]:
    return RNG.integers(0, 96, count).tolist()


def reference(llama: Any, sequence: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return llama(input_ids=torch.tensor([sequence])).logits[0].numpy()


def make(decoder_graph: Any, slots: int) -> Decoder:
    path, graph = decoder_graph
    return Decoder(open_session(path, threads=1), graph, slots)


def test_ragged_batch_agrees_with_torch_through_prefill_and_decode(llama: Any, decoder_graph: Any) -> None:
    decoder = make(decoder_graph, 3)
    sequences = [tokens(17), tokens(5), tokens(30)]
    for slot, sequence in enumerate(sequences):
        logits = decoder.prefill(slot, np.array(sequence))
        np.testing.assert_allclose(logits, reference(llama, sequence)[-1], rtol=1e-4, atol=1e-4)
        sequence.append(int(logits.argmax()))
    for _ in range(6):
        rows = decoder.decode(np.array([sequence[-1] for sequence in sequences])).copy()
        for sequence, logits in zip(sequences, rows, strict=True):
            np.testing.assert_allclose(logits, reference(llama, sequence)[-1], rtol=1e-4, atol=1e-4)
            sequence.append(int(logits.argmax()))


def test_a_prompt_in_two_parts_is_the_prompt(decoder_graph: Any) -> None:
    prompt = np.array(tokens(20))
    whole, parts = make(decoder_graph, 1), make(decoder_graph, 1)
    parts.prefill(0, prompt[:7])
    np.testing.assert_allclose(parts.prefill(0, prompt[7:]), whole.prefill(0, prompt), atol=1e-5)


def test_a_moved_slot_goes_on_as_if_it_had_always_been_there(decoder_graph: Any) -> None:
    stayed, moved = make(decoder_graph, 1), make(decoder_graph, 2)
    prompt = np.array(tokens(9))
    stayed.prefill(0, prompt)
    moved.prefill(0, np.array(tokens(12)))
    moved.prefill(1, prompt)
    moved.move(1, 0)
    np.testing.assert_array_equal(moved.decode(np.array([3])), stayed.decode(np.array([3])))


def test_score_gives_the_logits_of_every_token(llama: Any, decoder_graph: Any) -> None:
    path, graph = decoder_graph
    rows = np.array([tokens(24), tokens(24)])
    got = score(open_session(path, threads=1), graph, rows)
    for row, logits in zip(rows, got, strict=True):
        np.testing.assert_allclose(logits, reference(llama, row.tolist()), rtol=1e-4, atol=1e-4)


class TokenCountingSession:
    """A real session that notes how many tokens each run computes."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.runs: list[int] = []

    def io_binding(self) -> Any:
        return CountedBinding(self.session.io_binding())

    def run_with_iobinding(self, binding: Any) -> None:
        self.runs.append(binding.tokens)
        self.session.run_with_iobinding(binding.binding)


class CountedBinding:
    def __init__(self, binding: Any) -> None:
        self.binding = binding
        self.tokens = 0

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: Any, address: int) -> None:
        if name == "input_ids":
            self.tokens = int(np.prod(shape))
        self.binding.bind_input(name, device, index, dtype, shape, address)

    def bind_output(self, *args: Any) -> None:
        self.binding.bind_output(*args)


@pytest.mark.parametrize("prompt", [2, 16, 50])
def test_work_per_step_does_not_grow_with_the_prompt(decoder_graph: Any, prompt: int) -> None:
    path, graph = decoder_graph
    session = TokenCountingSession(open_session(path, threads=1))
    decoder = Decoder(session, graph, 1)
    decoder.prefill(0, np.array(tokens(prompt)))
    for _ in range(8):
        decoder.decode(np.array([1]))
    assert session.runs == [prompt] + [1] * 8


def test_a_long_row_is_scored_part_by_part(decoder_graph: Any) -> None:
    """Attention takes memory for every pair of a call's tokens: gigabytes for a long prompt in one go."""
    path, graph = decoder_graph
    session = TokenCountingSession(open_session(path, threads=1))
    row = np.array([tokens(60)])
    parts = score(session, graph, row, chunk=25)  # type: ignore[arg-type]
    assert session.runs == [25, 25, 10]
    np.testing.assert_allclose(parts, score(session.session, graph, row), rtol=1e-4, atol=1e-4)


def test_the_cache_is_updated_in_place(decoder_graph: Any) -> None:
    decoder = make(decoder_graph, 2)
    decoder.prefill(0, np.array(tokens(4)))
    before = [buffer.copy() for buffer in decoder.cache.buffers]
    decoder.decode(np.array([5]))
    for old, new in zip(before, decoder.cache.buffers, strict=True):
        changed = np.argwhere((old != new).any(axis=(1, 3)))
        assert changed.tolist() == [[0, 4]]  # row 0, place 4: nothing else was written


def test_a_full_context_and_a_missing_slot_are_refused(decoder_graph: Any) -> None:
    decoder = make(decoder_graph, 1)
    with pytest.raises(PromptTooLong, match="65 tokens do not fit the context of 64"):
        decoder.prefill(0, np.array(tokens(65)))
    with pytest.raises(CapacityError, match="slot 1 of 1"):
        decoder.prefill(1, np.array(tokens(2)))
    decoder.prefill(0, np.array(tokens(64)))
    with pytest.raises(PromptTooLong):
        decoder.decode(np.array([1]))
