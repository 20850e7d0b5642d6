"""Requests for drawings, and the loop that takes noise away."""

from collections.abc import Mapping
from math import sqrt

import numpy as np
import pytest

from runtime.drawing import Step, denoise, drawn, encode_requests, signal
from runtime.errors import InputError
from runtime.manifest import Diffusion, DrawingProcessing
from runtime.processing import Array

LABELS = ("zero", "one")
DIFFUSION = Diffusion(timesteps=100, steps=8)
PROCESSING = DrawingProcessing(noise=(1, 4, 4), diffusion=DIFFUSION)


def test_a_request_is_a_label_and_a_number() -> None:
    inputs = encode_requests(["one", "one #0", "one #7", "zero#7"], PROCESSING, LABELS)
    assert inputs["label"].tolist() == [1, 1, 1, 0]
    assert inputs["timestep"].tolist() == [100] * 4
    noise = inputs["noise"]
    np.testing.assert_array_equal(noise[0], noise[1])
    assert not np.array_equal(noise[1], noise[2])


@pytest.mark.parametrize("request_", ["two", "", "one #x", "one #-1", 3])
def test_what_is_not_a_request_is_said(request_: object) -> None:
    with pytest.raises(InputError, match="send"):
        encode_requests([request_], PROCESSING, LABELS)  # type: ignore[list-item]


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        encode_requests([], PROCESSING, LABELS)


def test_the_signal_falls_from_all_to_nothing() -> None:
    shares = [signal(timestep, DIFFUSION) for timestep in range(101)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(1, abs=1e-3)
    assert shares[-1] == pytest.approx(0, abs=1e-3)


def knows(image: Array) -> Step:
    """A perfect step: the velocity that belongs to `image`, whatever noise there is."""

    def step(inputs: Mapping[str, Array]) -> dict[str, Array]:
        kept = signal(int(inputs["timestep"][0]), DIFFUSION)
        noise = (inputs["noise"] - sqrt(kept) * image) / max(sqrt(1 - kept), 1e-6)
        return {"image": sqrt(kept) * noise - sqrt(1 - kept) * image}

    return step


def test_a_perfect_step_leads_to_the_image() -> None:
    image = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 1, 4, 4)).astype(np.float32)
    inputs = encode_requests(["one", "zero"], PROCESSING, LABELS)
    found = denoise(knows(image), inputs, DIFFUSION)["image"]
    # At time 0 a thousandth of the noise is left by the schedule's offset.
    np.testing.assert_allclose(found, image, atol=0.05)


def test_a_row_waits_for_its_own_time() -> None:
    """What is clean already stays as it is beside a row of noise."""
    inputs = encode_requests(["one", "zero"], PROCESSING, LABELS)
    inputs["timestep"][0] = 0
    found = denoise(knows(np.zeros((2, 1, 4, 4), np.float32)), inputs, DIFFUSION)["image"]
    np.testing.assert_array_equal(found[0], inputs["noise"][0])
    assert np.abs(found[1]).max() < 0.2


def test_pixels_are_grey_values() -> None:
    assert drawn(np.array([[[[-2.0, -1.0, 0.0, 1.0]]]])).tolist() == [[[0, 0, 128, 255]]]
