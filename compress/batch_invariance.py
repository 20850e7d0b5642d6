"""How much a decoder's logits depend on what else is in the batch: the same tokens, alone and together.

Kernels may add up a row's products in another order, or run another graph, when there are more rows. Tokens
are forced, so that one early difference does not count again at every later step.
"""

from collections.abc import Mapping

import numpy as np

from runtime.manifest import BatchInvariance
from runtime.model import TextModel
from runtime.processing import Array
from runtime.tensor import TensorModel

BATCH, PROMPT, STEPS = 8, 24, 16


def batch_invariance(model: TextModel | TensorModel, inputs: Mapping[str, Array]) -> BatchInvariance | None:
    """Compare over sequences cut from the real tokens of `inputs`; None for what is not a decoder."""
    if not isinstance(model, TextModel):
        return None
    length = min(PROMPT + STEPS, model.graph.context_length)
    stream = np.resize(np.asarray(inputs["input_ids"]).ravel(), BATCH + length)
    # Prompts of different lengths, as in service.
    rows = [stream[row : row + length - row % 4] for row in range(BATCH)]
    together = _decode(model, rows)
    alone = np.concatenate([_decode(model, [row]) for row in rows], axis=1)
    return BatchInvariance(
        batch=BATCH,
        deviation=float(np.abs(together - alone).max()),
        largest_logit=float(np.abs(alone).max()),
        changed=int((together.argmax(-1) != alone.argmax(-1)).sum()),
        tokens=together.shape[0] * together.shape[1],
    )


def _decode(model: TextModel, rows: list[Array]) -> Array:
    """Logits [steps, rows, vocabulary] of the last tokens of each row, decoded together."""
    decoder = model.scheduler(len(rows)).decoder
    steps = min(STEPS, min(len(row) for row in rows) - 1)
    for slot, row in enumerate(rows):
        if decoder.source:
            decoder.encode(slot, row)
        decoder.prefill(slot, row[:-steps])
    forced = np.stack([row[-steps:] for row in rows])
    return np.stack([decoder.decode(forced[:, step]).copy() for step in range(steps)])
