"""Joining requests into a batch and cutting it up again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.manifest import (
    FeedForwardGraph,
    Lineage,
    Manifest,
    Signature,
    TensorSpec,
    TextProcessing,
)
from service.batch import Layout, join, part, size


def text_manifest(**changes: object) -> Manifest:
    inputs = [
        TensorSpec(name=name, dtype="int64", shape=("batch", "sequence"))
        for name in ("input_ids", "attention_mask")
    ]
    hidden = TensorSpec(name="hidden", dtype="float32", shape=("batch", "sequence", 2))
    pooled = TensorSpec(name="pooled", dtype="float32", shape=("batch", 2))
    fields = {
        "name": "words",
        "variant": "tiny",
        "task": "embedding",
        "signature": Signature(inputs=tuple(inputs), outputs=(hidden, pooled)),
        "processing": TextProcessing(max_length=16, pad_id=7),
        "graph": FeedForwardGraph(),
        "lineage": Lineage(source="test"),
    }
    return Manifest.model_validate(fields | changes)


def request(rows: int, length: int) -> dict[str, np.ndarray]:
    ids = np.arange(rows * length).reshape(rows, length) + 100 * length
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_texts_are_padded_as_the_processing_says():
    layout = Layout.of(text_manifest())
    batch = join([request(1, 2), request(1, 4)], layout)
    assert batch["input_ids"][0].tolist() == [200, 201, 7, 7]
    assert batch["attention_mask"][0].tolist() == [1, 1, 0, 0]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=5))
def test_every_request_gets_its_own_rows_and_length_back(shapes):
    layout = Layout.of(text_manifest())
    requests = [request(*shape) for shape in shapes]
    batch = join(requests, layout)
    outputs = {
        "hidden": np.repeat(batch["input_ids"][:, :, None], 2, axis=2),
        "pooled": batch["input_ids"][:, :1].repeat(2, axis=1),
    }
    start = 0
    for asked in requests:
        own = part(outputs, start, *size(asked, layout), layout)
        np.testing.assert_array_equal(own["hidden"][:, :, 0], asked["input_ids"])
        np.testing.assert_array_equal(own["pooled"][:, 0], asked["input_ids"][:, 0])
        start += len(asked["input_ids"])


def test_without_a_mask_lengths_are_not_mixed():
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", "length")),)
    outputs = (TensorSpec(name="y", dtype="float32", shape=("batch", "length")),)
    layout = Layout.of(text_manifest(signature=Signature(inputs=inputs, outputs=outputs)))
    short, long = {"x": np.zeros((1, 2))}, {"x": np.zeros((1, 3))}
    assert layout.batched
    assert layout.shape(short) == layout.shape(short)
    assert layout.shape(short) != layout.shape(long)
    assert size(long, layout) == (1, 1)


def test_a_model_of_one_fixed_shape_is_not_batched():
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 3))
    assert not Layout.of(text_manifest(signature=Signature(inputs=(spec,), outputs=(spec,)))).batched
