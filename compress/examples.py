"""Which examples a metric is taken on: one draw by seed for every judge, so that all judge by the same."""

import numpy as np

from models.datasets import Split

EVALUATION_BATCH = 16


def choose(split: Split, examples: int, seed: int) -> Split:
    """At most `examples` of a split's examples, drawn once by seed, in order."""
    total = len(split) if split.targets is None else len(split.targets)
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:examples])
    # Embedding pairs have two input rows to a target.
    per = len(split) // total
    input_rows = (rows[:, None] * per + np.arange(per)).ravel()
    inputs = {name: value[input_rows] for name, value in split.inputs.items()}
    references = None if split.references is None else [split.references[row] for row in rows]
    return Split(inputs, None if split.targets is None else split.targets[rows], None, references)
