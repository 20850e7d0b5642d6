"""A second model that answers some requests unseen, and how often it says the same.

The client never waits for it: it runs after the answer, a few at a time, and is left out where it is busy.
Labels agree or do not; other outputs agree where their cosine is near one. Of a text each token is compared
with the one that the shadow finds likeliest there: two texts may differ after one token and both be right, so
it reads what was answered, in one go, and writes nothing of its own.
"""

import asyncio
import random
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import ModelpressError
from runtime.manifest import Manifest
from runtime.processing import Array
from runtime.scoring import prompt_logprobs
from service import context, metrics
from service.context import RequestContext

if TYPE_CHECKING:
    from service.batcher import Batcher
    from service.engine import Engine

# More comparisons at once than this are left out: the shadow must not become a load.
AT_ONCE = 4
SAME_DIRECTION = 0.99

_tasks: set["asyncio.Task[None]"] = set()


def is_drawn(share: float) -> bool:
    """Whether a request is among the share that is compared."""
    return random.random() < share


def follow(primary: Manifest, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Give an answered request to its shadow, if it has one."""
    request = context.current()
    if request and request.shadow:
        _begin(_compare(primary, request.shadow, inputs, outputs))


def follow_text(primary: Manifest, other: "Engine", prompt: Sequence[int], answer: Sequence[int]) -> None:
    """Give a prompt and what was answered to it, as tokens, to a shadow."""
    if answer:
        _begin(_reread(primary, other, prompt, answer))


def _begin(comparison: Coroutine[None, None, None]) -> None:
    if len(_tasks) >= AT_ONCE:
        comparison.close()
        return
    task = asyncio.create_task(comparison)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _compare(
    primary: Manifest, other: "Batcher", inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> None:
    context.enter(RequestContext("shadow"))
    try:
        answers = await other.run(inputs)
    except ModelpressError:
        return
    _count(primary, other.manifest, agreement(primary, outputs, answers))


async def _reread(primary: Manifest, other: "Engine", prompt: Sequence[int], answer: Sequence[int]) -> None:
    try:
        read = await asyncio.to_thread(prompt_logprobs, other.model, [*prompt, *answer], 1)
    except ModelpressError:
        return
    likeliest = [token.top[0][0] for token in read[len(prompt) :]]
    _count(primary, other.manifest, np.array(likeliest) == answer)


def _count(primary: Manifest, other: Manifest, same: Array) -> None:
    labels = primary.tag, other.tag
    metrics.SHADOW_COMPARED.labels(*labels).inc(len(same))
    metrics.SHADOW_AGREED.labels(*labels).inc(float(same.sum()))


def agreement(manifest: Manifest, one: Mapping[str, Array], other: Mapping[str, Array]) -> Array:
    """Whether two answers agree, bool [rows], by the first output; nothing where its shapes differ."""
    name = manifest.signature.outputs[0].name
    if name not in other or one[name].shape != other[name].shape:
        return np.zeros(0, bool)
    rows = len(one[name])
    if manifest.task in ("image-classification", "text-classification", "token-classification"):
        return np.asarray((one[name].argmax(-1) == other[name].argmax(-1)).reshape(rows, -1).all(-1))
    a, b = (outputs[name].reshape(rows, -1).astype(np.float64) for outputs in (one, other))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) >= SAME_DIRECTION * np.maximum(norms, 1e-12))
