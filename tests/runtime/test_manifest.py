"""What a bundle's version is a hash of."""

import pytest

from runtime.manifest import (
    DecoderGraph,
    FeedForwardGraph,
    GenerationProcessing,
    Graph,
    ImageProcessing,
    KVLayer,
    Lineage,
    Manifest,
    Processing,
    Signature,
    Suppression,
    Task,
    TensorSpec,
    TextProcessing,
)

IMAGE = ImageProcessing(mode="L", height=8, width=8, rescale=1 / 255, mean=(0.0,), std=(1.0,))
DECODER = DecoderGraph(layers=(KVLayer(heads=2, head_dim=4),), vocab_size=9, context_length=64)


def manifest(task: Task, processing: Processing, graph: Graph) -> Manifest:
    tensor = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
    return Manifest(
        name="net",
        variant="int8",
        task=task,
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        processing=processing,
        graph=graph,
        lineage=Lineage(source="zoo:net"),
    )


# As the first manifest that could be written gave them. A change here breaks every bundle that there is.
@pytest.mark.parametrize(
    ("task", "processing", "graph", "version"),
    [
        ("image-classification", IMAGE, FeedForwardGraph(), "3dc427beaee840c0"),
        ("text-classification", TextProcessing(max_length=16), FeedForwardGraph(), "ecda27bd380d85f9"),
        ("text-generation", GenerationProcessing(eos_ids=(3,)), DECODER, "c4180f15603139a4"),
    ],
)
def test_a_field_added_since_does_not_change_the_version_of_who_lacks_it(
    task: Task, processing: Processing, graph: Graph, version: str
) -> None:
    assert manifest(task, processing, graph).content_hash() == version


def test_a_field_that_is_set_counts() -> None:
    with_boxes = IMAGE.model_copy(update={"suppression": Suppression()})
    plain, detector = (manifest("object-detection", each, FeedForwardGraph()) for each in (IMAGE, with_boxes))
    assert plain.content_hash() != detector.content_hash()
    assert Manifest.model_validate_json(detector.model_dump_json()) == detector
