from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tokenizers import Tokenizer

from runtime.bundle import Bundle, write_bundle
from runtime.captions import Captioned
from runtime.errors import BatchTooLarge, GraphError, InputError
from runtime.manifest import (
    FeedForwardGraph,
    ImageProcessing,
    Lineage,
    Manifest,
    Processing,
    Signature,
    Task,
    TensorProcessing,
    TensorSpec,
    TextProcessing,
)
from runtime.tensor import MAX_CHARACTERS, REMEMBERED, TensorModel

LABELS = ("dark", "light")


def graph() -> onnx.ModelProto:
    """logits = [-mean, mean] of an image [batch, 1, 4, 4]."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Neg", ["mean"], ["minus"]),
        helper.make_node("Unsqueeze", ["mean", "last"], ["a"]),
        helper.make_node("Unsqueeze", ["minus", "last"], ["b"]),
        helper.make_node("Concat", ["b", "a"], ["logits"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 4, 4])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]
    made = helper.make_graph(nodes, "brightness", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write(folder: Path, task: Task, processing: Processing) -> Bundle:
    onnx.save(graph(), folder / "graph.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="image", dtype="float32", shape=("batch", 1, 4, 4)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 2)),),
    )
    manifest = Manifest(
        name="brightness",
        variant="fp32",
        task=task,
        signature=signature,
        processing=processing,
        labels=LABELS,
        graph=FeedForwardGraph(),
        lineage=Lineage(source="test:brightness"),
    )
    return write_bundle(folder / "bundle", manifest, {"model.onnx": folder / "graph.onnx"})


IMAGE = ImageProcessing(mode="L", height=4, width=4, rescale=1 / 255, mean=(0.5,), std=(0.25,))


@pytest.fixture
def model(tmp_path: Path) -> TensorModel:
    return TensorModel(write(tmp_path, "image-classification", IMAGE), threads=1)


def test_tensors_in_tensors_out(model: TensorModel) -> None:
    images = np.stack([np.full((1, 4, 4), value, np.float32) for value in (1, -2)])
    np.testing.assert_allclose(model.run({"image": images})["logits"], [[-1, 1], [2, -2]])


@pytest.mark.parametrize("size", [(4, 4), (9, 5)])
def test_an_image_gets_a_label(model: TensorModel, size: tuple[int, int]) -> None:
    answers = model.predict([Image.new("RGB", size, "white"), Image.new("L", size, 0)])
    assert [answer["label"] for answer in answers] == ["light", "dark"]
    # White is (1 - 0.5) / 0.25 = 2 after processing, and softmax of [-2, 2] gives the rest.
    assert answers[0]["probability"] == pytest.approx(1 / (1 + np.exp(-4)))
    assert answers[0]["scores"].keys() == set(LABELS)


def test_a_raw_model_answers_in_tensors(tmp_path: Path) -> None:
    model = TensorModel(write(tmp_path, "tensor", TensorProcessing()), threads=1)
    assert model.predict([np.ones((1, 4, 4), np.float32)]) == [{"logits": [-1.0, 1.0]}]


GOOD = np.zeros((2, 1, 4, 4), np.float32)
NAN = GOOD.copy()
NAN[1, 0, 2, 2] = np.nan


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'image' is missing"),
        ({"image": GOOD, "extra": GOOD}, "unknown input 'extra'"),
        ({"image": GOOD.astype(np.float64)}, "is float64; send float32"),
        ({"image": GOOD[:, 0]}, r"has shape \[2, 4, 4\]; send \[batch, 1, 4, 4\]"),
        ({"image": GOOD[:, :, :3]}, r"has shape \[2, 1, 3, 4\]; send \[batch, 1, 4, 4\]"),
        ({"image": GOOD[:0]}, "is empty"),
        ({"image": NAN}, "NaN or infinite"),
        ({"image": GOOD + np.float32(np.inf)}, "NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(model: TensorModel, inputs, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        model.run(inputs)


def test_what_fitted_before_is_looked_at_again(model: TensorModel) -> None:
    model.check({"image": np.zeros_like(NAN)})
    with pytest.raises(InputError, match="NaN or infinite"):
        model.check({"image": NAN})
    with pytest.raises(InputError, match="float64"):
        model.check({"image": np.zeros_like(NAN, np.float64)})
    for rows in range(1, 2 * REMEMBERED):
        model.check({"image": np.zeros((rows, *NAN.shape[1:]), np.float32)})
    with pytest.raises(InputError, match="shape"):
        model.check({"image": np.zeros((2, 1, 4, 5), np.float32)})


@pytest.mark.parametrize("items", [[], [b"not an image"], [b"\x89PNG\r\n\x1a\n truncated"]])
def test_items_that_are_no_images_are_refused(model: TensorModel, items: list[bytes]) -> None:
    with pytest.raises(InputError):
        model.predict(items)


LONG = "a" * (MAX_CHARACTERS // 2)


@pytest.mark.parametrize(
    "items",
    [
        [LONG, LONG, "a"],
        # One context, asked about many times, is read as often.
        [{"question": "who?", "context": LONG}] * 2,
        [Captioned(b"", (LONG, LONG + "a"))],
    ],
)
def test_more_text_than_anybody_reads_is_refused_before_it_is_tokenized(
    model: TensorModel, items: list[Any]
) -> None:
    with pytest.raises(BatchTooLarge, match="characters at once; send at most 4,194,304"):
        model.encode(items)


def test_a_file_that_is_not_onnx_is_refused_in_one_line(tmp_path: Path) -> None:
    bundle = write(tmp_path, "tensor", TensorProcessing())
    (tmp_path / "noise").write_bytes(b"not a graph at all")
    broken = write_bundle(tmp_path / "broken", bundle.manifest, {"model.onnx": tmp_path / "noise"})
    with pytest.raises(GraphError, match="onnxruntime cannot load it") as caught:
        TensorModel(broken)
    assert "\n" not in str(caught.value)


def text_bundle(folder: Path, tokenizer_file: Path, pad_id: int, rows: int) -> Bundle:
    """logits = of a text's tokens, the highest row of a table [rows, 2] that counts on."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMax", ["rows"], ["logits"], axes=[1], keepdims=0),
    ]
    shape = ("batch", "sequence")
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    table = helper.make_tensor("table", TensorProto.FLOAT, [rows, 2], range(2 * rows))
    made = helper.make_graph(nodes, "texts", inputs, outputs, [table])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "graph.onnx")
    manifest = Manifest(
        name="texts",
        variant="fp32",
        task="text-classification",
        signature=Signature(
            inputs=(TensorSpec(name="input_ids", dtype="int64", shape=shape),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 2)),),
        ),
        processing=TextProcessing(max_length=8, pad_id=pad_id),
        labels=LABELS,
        graph=FeedForwardGraph(),
        lineage=Lineage(source="test:texts"),
    )
    files = {"model.onnx": folder / "graph.onnx", "tokenizer.json": tokenizer_file}
    return write_bundle(folder / "bundle", manifest, files)


@pytest.mark.parametrize("outside", [True, False])
def test_a_padding_token_that_the_tokenizer_lacks_is_one_that_the_model_has(
    tmp_path: Path, tokenizer_file: Path, outside: bool
) -> None:
    """As of a model whose padding was added to its table alone: what we pad with, others may send."""
    size = max(Tokenizer.from_file(str(tokenizer_file)).get_vocab().values()) + 1
    pad_id = size if outside else 0
    model = TensorModel(text_bundle(tmp_path, tokenizer_file, pad_id, rows=size + 5), threads=1)
    encoded = model.encode([[1, 2, 3], [4]])
    assert encoded["input_ids"].tolist() == [[1, 2, 3], [4, pad_id, pad_id]]
    highest = max(4, pad_id)
    np.testing.assert_array_equal(model.run(encoded)["logits"][1], [2 * highest, 2 * highest + 1])
    for token in (size + outside, -1):
        with pytest.raises(InputError, match=f"outside the vocabulary of {size + outside}"):
            model.run({"input_ids": np.array([[1, token]])})
