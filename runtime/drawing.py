"""Drawing on request: a label becomes a generator's noise, and what comes out becomes pixels.

A request is a label, and after `#` a number for another drawing of it: "7", "7 #12". The same request gives
the same drawing. A diffusion model's graph is one step; the loop around it is here, in numpy.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import cos, pi
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.manifest import Diffusion, DrawingProcessing, ImageProcessing
from runtime.processing import Array

Step = Callable[[Mapping[str, Array]], Mapping[str, Array]]

# Nichol and Dhariwal (2021, arXiv:2102.09672), section 3.2.
OFFSET = 0.008


def encode_requests(
    requests: Sequence[str], processing: DrawingProcessing, labels: Sequence[str]
) -> dict[str, Array]:
    """Requests as a generator's inputs. Raises InputError for an empty batch or an unknown label."""
    if not len(requests):
        raise InputError("the batch is empty; send at least one label")
    read = [_read(request, labels) for request in requests]
    noise = [np.random.default_rng(pair).standard_normal(processing.noise, np.float32) for pair in read]
    inputs: dict[str, Array] = {
        "noise": np.stack(noise),
        "label": np.array([label for label, _ in read], np.int64),
    }
    if processing.diffusion:
        inputs["timestep"] = np.full(len(read), processing.diffusion.timesteps, np.int64)
    return inputs


def signal(timestep: float, diffusion: Diffusion) -> float:
    """The share of the variance that is still image at `timestep`: 1 at 0, and 0 at `timesteps`."""
    return cos((timestep / diffusion.timesteps + OFFSET) / (1 + OFFSET) * pi / 2) ** 2


def denoise(step: Step, inputs: Mapping[str, Array], diffusion: Diffusion) -> dict[str, Array]:
    """`noise` with the noise taken away, by deterministic steps (DDIM; Song et al., arXiv:2010.02502).

    `step` gives the velocity, sqrt(s) noise - sqrt(1 - s) image at signal s (Salimans and Ho,
    arXiv:2202.00512). A row waits until the loop comes down to its own `timestep`.
    """
    times = np.linspace(diffusion.timesteps, 0, diffusion.steps + 1).round().astype(np.int64)
    image, name = inputs["noise"], ""
    for now, then in pairwise(times.tolist()):
        fed = {**inputs, "noise": image, "timestep": np.full_like(inputs["timestep"], now)}
        name, velocity = next(iter(step(fed).items()))
        moved = _moved(image, velocity, signal(now, diffusion), signal(then, diffusion))
        waits = (inputs["timestep"] < now).reshape(-1, *[1] * (image.ndim - 1))
        image = np.where(waits, image, moved)
    return {name: image}


def _moved(image: Array, velocity: Array, now: float, then: float) -> Array:
    """From signal `now` to signal `then`; pixels of the image behind the noise are kept in [-1, 1]."""
    clean = np.clip(now**0.5 * image - (1 - now) ** 0.5 * velocity, -1, 1)
    noise = (1 - now) ** 0.5 * image + now**0.5 * velocity
    return np.asarray(then**0.5 * clean + (1 - then) ** 0.5 * noise, np.float32)


def drawn(images: Array) -> Array:
    """[batch, 1, height, width] in [-1, 1] as grey values, uint8 [batch, height, width]."""
    return np.asarray(((np.clip(images[:, 0], -1, 1) + 1) * 127.5).round().astype(np.uint8))


def restored(tensors: Array, processing: ImageProcessing) -> Array:
    """What `preprocess_images` made of grey images, as uint8 [batch, height, width] again."""
    values = (tensors[:, 0] * processing.std[0] + processing.mean[0]) / processing.rescale
    return np.asarray(np.clip(values, 0, 255).round().astype(np.uint8))


def _read(request: Any, labels: Sequence[str]) -> tuple[int, int]:
    """A request's label, as its number, and its seed."""
    if not isinstance(request, str):
        raise InputError(f"send a label as text, one of {', '.join(labels)}")
    label, _, seed = (part.strip() for part in request.partition("#"))
    if label not in labels:
        raise InputError(f"'{label[:50]}' is not a label of this model; send one of {', '.join(labels)}")
    if seed and not (seed.isascii() and seed.isdigit() and len(seed) < 19):
        raise InputError(f"'{seed[:50]}' is not a number; send such as '{label} #12'")
    return list(labels).index(label), int(seed or 0)
