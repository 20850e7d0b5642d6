from typing import Any

import numpy as np

from compress.batch_invariance import batch_invariance
from runtime.bundle import Bundle
from runtime.model import TextModel, load_model

INPUTS = {"input_ids": np.random.default_rng(0).integers(0, 96, (4, 24))}


def test_a_float32_decoder_answers_alike_alone_and_in_a_batch(text_bundle: Bundle) -> None:
    found = batch_invariance(load_model(text_bundle, threads=1), INPUTS)
    assert found is not None
    assert found.deviation < 1e-4 * found.largest_logit
    assert (found.batch, found.changed, found.tokens) == (8, 0, 128)


class Coupled(TextModel):
    """A model whose rows see each other: its logits grow with the batch."""

    def scheduler(self, slots: int = 8, **kwargs: Any) -> Any:
        scheduler = super().scheduler(slots, **kwargs)
        decode = scheduler.decoder.decode
        scheduler.decoder.decode = lambda tokens: decode(tokens) * len(tokens)
        return scheduler


def test_a_dependence_on_the_batch_is_seen(text_bundle: Bundle) -> None:
    found = batch_invariance(Coupled(text_bundle, threads=1), INPUTS)
    assert found is not None
    assert found.deviation > found.largest_logit
