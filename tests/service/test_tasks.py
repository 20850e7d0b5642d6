"""`POST /predict/{model}` and both dialects' tensors for tasks beside classification, over tiny bundles."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from runtime.bundle import write_bundle
from runtime.manifest import (
    CaptionedProcessing,
    FeedForwardGraph,
    GraphProcessing,
    ImageProcessing,
    Lineage,
    Manifest,
    Processing,
    Signature,
    Suppression,
    Task,
    TensorSpec,
    TextProcessing,
    WordProcessing,
)

WORDS = {"[pad]": 0, "ada": 1, "lives": 2, "here": 3}
IMAGE = ImageProcessing(mode="L", height=2, width=2, rescale=1 / 255, mean=(0.0,), std=(1.0,))
KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def constant(name: str, values: Any, dtype: type = np.float32) -> NodeProto:
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype), name)
    )


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape})


def write(
    folder: Path,
    task: Task,
    nodes: list[NodeProto],
    inputs: tuple[TensorSpec, ...],
    outputs: TensorSpec | tuple[TensorSpec, ...],
    processing: Processing,
    labels: tuple[str, ...] = (),
) -> Path:
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    infos = [
        [helper.make_tensor_value_info(each.name, KINDS[each.dtype], each.shape) for each in group]
        for group in (inputs, given)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, task, *infos), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    files = {"model.onnx": folder / f"{task}.onnx"}
    onnx.save(model, files["model.onnx"])
    if isinstance(processing, TextProcessing | CaptionedProcessing):
        files["tokenizer.json"] = folder / "tokenizer.json"
    manifest = Manifest(
        name=task,
        variant="tiny",
        task=task,
        signature=Signature(inputs=inputs, outputs=given),
        processing=processing,
        labels=labels,
        graph=FeedForwardGraph(),
        lineage=Lineage(source="test"),
    )
    return write_bundle(folder / task, manifest, files).path


def write_tagger(folder: Path) -> Path:
    """Says `person` of the word `ada`, and `other` of every other one."""
    inputs = (
        spec("input_ids", "int64", "batch", "sequence"),
        spec("attention_mask", "int64", "batch", "sequence"),
    )
    nodes = [
        constant("table", [[4, 0], [0, 4], [4, 0], [4, 0]]),
        helper.make_node("Gather", ["table", "input_ids"], ["logits"]),
    ]
    output = spec("logits", "float32", "batch", "sequence", 2)
    return write(
        folder,
        "token-classification",
        nodes,
        inputs,
        output,
        TextProcessing(max_length=8),
        ("other", "person"),
    )


def write_language_model(folder: Path) -> Path:
    """After `ada` comes `lives`, after `lives` most likely `here`; of more than two words the end counts."""
    inputs = (
        spec("input_ids", "int64", "batch", "sequence"),
        spec("attention_mask", "int64", "batch", "sequence"),
    )
    nodes = [
        constant("table", [[9, 0, 0, 0], [0, 0, 9, 0], [0, 1, 0, 2], [9, 0, 0, 0]]),
        helper.make_node("Gather", ["table", "input_ids"], ["logits"]),
    ]
    output = spec("logits", "float32", "batch", "sequence", 4)
    return write(folder, "next-token", nodes, inputs, output, TextProcessing(max_length=2, keep="last"))


def write_embedder(folder: Path) -> Path:
    """A word's vector is a column of the identity; a sentence's is their mean, of length one."""
    inputs = (
        spec("input_ids", "int64", "batch", "sequence"),
        spec("attention_mask", "int64", "batch", "sequence"),
    )
    nodes = [constant("table", np.eye(4)), helper.make_node("Gather", ["table", "input_ids"], ["hidden"])]
    processing = TextProcessing(max_length=8, pooling="mean", normalize=True)
    return write(
        folder, "embedding", nodes, inputs, spec("hidden", "float32", "batch", "sequence", 4), processing
    )


def write_reader(folder: Path) -> Path:
    """Answers any question with the context's `here`, whatever else is there."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = tuple(spec(name, "int64", "batch", "sequence") for name in names)
    nodes = [
        constant("table", [[0, 0], [0, 0], [0, 0], [6, 6]]),
        helper.make_node("Gather", ["table", "input_ids"], ["logits"]),
    ]
    output = spec("logits", "float32", "batch", "sequence", 2)
    processing = TextProcessing(max_length=8, token_type_ids=True, pair=True)
    return write(folder, "question-answering", nodes, inputs, output, processing)


def write_segmenter(folder: Path) -> Path:
    """A bright pixel is `thing`, a dark one `ground`."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["last"], perm=[0, 2, 3, 1]),
        constant("weights", [[-1.0, 1.0]]),
        constant("bias", [0.5, -0.5]),
        helper.make_node("MatMul", ["last", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    inputs, output = (
        (spec("pixels", "float32", "batch", 1, 2, 2),),
        spec("logits", "float32", "batch", 2, 2, 2),
    )
    return write(folder, "segmentation", nodes, inputs, output, IMAGE, ("ground", "thing"))


def write_detector(folder: Path) -> Path:
    """Sees one `cup`, twice nearly at the same place, in a bright image, and nothing in a dark one."""
    places = [[0.1, 0.1, 0.5, 0.5, -3, -9], [0.1, 0.1, 0.5, 0.6, -4, -9]]
    nodes = [
        constant("axes", [1, 2, 3], np.int64),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["brightness"]),
        constant("weights", [[[0, 0, 0, 0, 6, 0]]]),
        constant("places", [places]),
        helper.make_node("Mul", ["brightness", "weights"], ["seen"]),
        helper.make_node("Add", ["places", "seen"], ["boxes"]),
    ]
    nodes.insert(2, constant("last", [3], np.int64))
    inputs = (spec("pixels", "float32", "batch", 1, 2, 2),)
    output = spec("boxes", "float32", "batch", 2, 6)
    processing = IMAGE.model_copy(update={"suppression": Suppression()})
    return write(folder, "object-detection", nodes, inputs, output, processing, ("cup", "spoon"))


def write_graph_net(folder: Path) -> Path:
    """A node's label is the sign of its one feature. The edges are read and change nothing."""
    nodes = [
        constant("weights", [[-1.0, 1.0]]),
        helper.make_node("MatMul", ["features", "weights"], ["own"]),
        helper.make_node("Cast", ["edges"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axes"], ["sum"], keepdims=1),
        constant("zero", 0.0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["own", "nothing"], ["logits"]),
    ]
    nodes.insert(3, constant("axes", [1, 2], np.int64))
    inputs = (spec("features", "float32", "batch", "nodes", 1), spec("edges", "int64", "batch", "edges", 2))
    output = spec("logits", "float32", "batch", "nodes", 2)
    return write(
        folder, "node-classification", nodes, inputs, output, GraphProcessing(width=1), ("minus", "plus")
    )


def write_matcher(folder: Path) -> Path:
    """The more `ada` and the less `here` a caption has, the better it fits a bright image, and a dark one
    the other way round."""
    nodes = [
        constant("table", [0, 6, 0, -6]),
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        constant("last", [2], np.int64),
        helper.make_node("ReduceSum", ["words", "last"], ["caption"], keepdims=0),
        constant("rest", [2, 3], np.int64),
        helper.make_node("ReduceMean", ["pixel_values", "rest"], ["brightness"], keepdims=0),
        constant("half", 0.5),
        helper.make_node("Sub", ["brightness", "half"], ["image"]),
        helper.make_node("Mul", ["caption", "image"], ["logits"]),
    ]
    inputs = (
        spec("pixel_values", "float32", "batch", 1, 2, 2),
        spec("input_ids", "int64", "batch", "captions", 4),
        spec("attention_mask", "int64", "batch", "captions", 4),
    )
    output = spec("logits", "float32", "batch", "captions")
    processing = CaptionedProcessing(image=IMAGE, text=TextProcessing(max_length=4))
    labels = ("ada", "here")
    return write(folder, "zero-shot-image-classification", nodes, inputs, output, processing, labels)


def write_word_vectors(folder: Path) -> Path:
    """Twelve words on a circle: each is nearest to the two beside it."""
    angles = np.arange(12) * np.pi / 6
    table = np.stack([np.cos(angles), np.sin(angles)], 1)
    nodes = [
        constant("table", table),
        helper.make_node("Gather", ["table", "word_ids"], ["vector"]),
        constant("columns", table.T),
        helper.make_node("MatMul", ["vector", "columns"], ["similarity"]),
    ]
    inputs = (spec("word_ids", "int64", "batch"),)
    outputs = (spec("similarity", "float32", "batch", 12), spec("vector", "float32", "batch", 2))
    labels = tuple(f"hour{hour}" for hour in range(12))
    return write(folder, "word-vectors", nodes, inputs, outputs, WordProcessing(), labels)


@pytest.fixture(scope="module")
def http(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("tasks")
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[pad]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    writers = (
        *(write_tagger, write_reader, write_language_model, write_embedder, write_segmenter),
        *(write_detector, write_graph_net, write_matcher, write_word_vectors),
    )
    with serve(*[str(writer(folder)) for writer in writers]) as server:
        yield server.http


def predict(http: httpx.Client, task: Task, body: Any) -> list[Any]:
    answer = http.post(f"/predict/{task}-tiny", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["predictions"])


def png(*rows: list[int]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_sentences_words_are_tagged(http):
    first, bad, second = predict(http, "token-classification", ["ada lives here", " ", "here"])
    assert [(each["token"], each["label"]) for each in first["tokens"]] == [
        ("ada", "person"),
        ("lives", "other"),
        ("here", "other"),
    ]
    assert "empty" in bad["error"]
    assert [each["label"] for each in second["tokens"]] == ["other"]


READER = "question-answering"


def test_a_question_is_answered_by_a_piece_of_its_context(http):
    (answer,) = predict(http, READER, {"question": "here ada", "context": "ada lives  here"})
    assert (answer["answer"], answer["start"], answer["end"]) == ("here", 11, 15)
    assert 0.9 < answer["probability"] <= 1
    first, bad, third = predict(http, READER, {"question": "ada", "context": ["here", " ", "Ада lives here"]})
    assert (first["answer"], third["start"], third["end"]) == ("here", 10, 14)
    assert "the context is empty" in bad["error"]


def test_what_does_not_fit_of_a_context_is_cut_off(http):
    (answer,) = predict(http, READER, {"question": "ada", "context": "lives " * 20 + "here"})
    assert answer["answer"].startswith("lives")
    assert answer["end"] <= len("lives " * 7)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"context": "ada"}, 'wants {"question": ..., "context": ...}'),
        ({"question": "ada"}, 'wants {"question": ..., "context": ...}'),
        ({"text": "ada"}, 'wants {"question": ..., "context": ...}'),
        ("ada", 'wants {"question": ..., "context": ...}'),
        ({"question": " ", "context": "ada"}, "the question is empty"),
        ({"question": "ada " * 9, "context": "ada"}, "no room for context"),
        ({"question": ["ada"] * 2, "context": ["ada"] * 3}, "as many contexts as questions"),
        ({"question": [], "context": "ada"}, "the batch is empty"),
    ],
)
def test_a_question_that_is_none_is_refused(http, body, message):
    answer = http.post(f"/predict/{READER}-tiny", json=body)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


def test_a_question_and_its_context_are_two_tensors_of_the_protocol(http):
    url = f"/v2/models/{READER}-tiny/infer"
    question = {"name": "question", "datatype": "BYTES", "shape": [1], "data": ["ada"]}
    context = {"name": "context", "datatype": "BYTES", "shape": [1], "data": ["lives here"]}
    answer = http.post(url, json={"inputs": [question, context]})
    assert answer.json()["outputs"][0]["data"] == [0, 0, 0, 0, 6, 6]
    assert http.post(url, json={"inputs": [question]}).status_code == 400


def test_a_text_s_next_piece_is_said_with_its_probability(http):
    first, bad, second = predict(http, "next-token", ["ada", " ", "ada ada lives"])
    assert first["next"][0]["text"] == "lives"
    assert first["next"][0]["probability"] > 0.99
    assert "empty" in bad["error"]
    assert [each["text"] for each in second["next"][:2]] == ["here", "ada"]
    assert sum(each["probability"] for each in second["next"]) == pytest.approx(1)


def test_a_sentence_gets_its_vector(http):
    one, other = predict(http, "embedding", {"text": ["ada", "ada here"]})
    np.testing.assert_allclose(one["embedding"], [0, 1, 0, 0])
    np.testing.assert_allclose(other["embedding"], [0, 0.5**0.5, 0, 0.5**0.5], rtol=1e-6)


def test_an_image_gets_its_mask(http):
    (answer, bad) = predict(http, "segmentation", {"image": [png([255, 0], [0, 0]), "§"]})
    assert answer["regions"] == [{"label": "ground", "share": 0.75}, {"label": "thing", "share": 0.25}]
    mask = Image.open(io.BytesIO(base64.b64decode(answer["mask"])))
    assert np.asarray(mask).tolist() == [[1, 0], [0, 0]]
    assert "not base64" in bad["error"]


def test_an_images_objects_are_found_once(http):
    bright, dark = predict(http, "object-detection", [png([255, 255], [255, 255]), png([0, 0], [0, 0])])
    (cup,) = bright["objects"]
    assert cup["label"] == "cup"
    np.testing.assert_allclose(cup["box"], [0.1, 0.1, 0.5, 0.5], rtol=1e-6)
    assert dark == {"objects": []}


MATCH: Task = "zero-shot-image-classification"
BRIGHT, DARK = png([255, 255], [255, 255]), png([0, 0], [0, 0])


def test_an_image_alone_is_compared_with_the_models_own_captions(http):
    answer = http.post(f"/predict/{MATCH}-tiny", content=base64.b64decode(BRIGHT))
    (own,) = answer.json()["predictions"]
    assert own["label"] == "ada"
    assert own["scores"] == pytest.approx({"ada": 0.9975, "here": 0.0025}, abs=1e-4)
    assert [each["label"] for each in predict(http, MATCH, [BRIGHT, DARK])] == ["ada", "here"]


def test_an_image_is_compared_with_the_captions_beside_it(http):
    body = {"image": DARK, "text": ["ada lives here", "lives here", "ada"]}
    (only,) = predict(http, MATCH, body)
    assert only["label"] == "lives here"
    assert list(only["scores"]) == body["text"]
    assert sum(only["scores"].values()) == pytest.approx(1)
    (certain,) = predict(http, MATCH, {"image": DARK, "text": "ada"})
    assert certain == {"label": "ada", "probability": 1.0, "scores": {"ada": 1.0}}


def test_a_form_brings_images_and_captions(http):
    form = {"files": {"image": ("a.png", base64.b64decode(DARK))}, "data": {"text": ["ada", "lives"]}}
    answer = http.post(f"/predict/{MATCH}-tiny", **form)
    assert [each["label"] for each in answer.json()["predictions"]] == ["lives"]


def test_a_bad_image_beside_captions_costs_the_others_nothing(http):
    images = [BRIGHT, base64.b64encode(b"no image").decode(), "§"]
    good, unreadable, undecoded = predict(http, MATCH, {"image": images, "text": ["here", "ada"]})
    assert good["label"] == "ada"
    assert "not a readable image" in unreadable["error"]
    assert "not base64" in undecoded["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"image": BRIGHT, "text": []}, "no captions"),
        ({"image": BRIGHT, "text": ["ada", " "]}, "caption 1 is empty"),
        ({"image": BRIGHT, "text": ["ada", "ada"]}, "caption 1 is caption 0 again"),
        ({"image": BRIGHT, "text": ["夜"]}, "knows no word of '夜'"),
        ({"image": "§", "text": ["ada"]}, "not base64"),
        ({"text": ["ada"]}, 'wants {"image": ...}'),
        ({"image": BRIGHT, "text": [3]}, "text"),
    ],
)
def test_captions_that_cannot_be_compared_are_refused(http, body, said):
    answer = http.post(f"/predict/{MATCH}-tiny", json=body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


def test_a_graphs_nodes_are_labelled_and_no_padding_is(http):
    small = {"features": [[1]], "edges": []}
    large = {"features": [[-1.5], [2], [3]], "edges": [[0, 1], [1, 2]]}
    bad = {"features": [[1]], "edges": [[0, 7]]}
    answers = predict(http, "node-classification", {"graph": [small, bad, large, {"nodes": 1}]})
    assert [node["label"] for node in answers[0]["nodes"]] == ["plus"]
    assert "there are 1 nodes" in answers[1]["error"]
    assert [node["label"] for node in answers[2]["nodes"]] == ["minus", "plus", "plus"]
    assert "features" in answers[3]["error"]
    assert predict(http, "node-classification", large) == [answers[2]]
    assert predict(http, "node-classification", [small, large]) == [answers[0], answers[2]]


def test_a_word_gets_its_vector_and_its_neighbours(http):
    (only,) = predict(http, "word-vectors", {"text": "Hour3"})
    np.testing.assert_allclose(only["vector"], [0, 1], atol=1e-6)
    assert len(only["neighbours"]) == 10
    assert {each["word"] for each in only["neighbours"][:2]} == {"hour2", "hour4"}
    assert only["neighbours"][0]["similarity"] == pytest.approx(3**0.5 / 2, abs=1e-5)
    assert "hour3" not in [each["word"] for each in only["neighbours"]]


def test_an_unknown_word_costs_the_others_nothing(http):
    first, unknown, empty, two, last = predict(
        http, "word-vectors", ["hour0", "夜", "", "hour1 hour2", "hour11"]
    )
    assert "'夜' is not among the 12 words" in unknown["error"]
    assert "empty" in empty["error"]
    assert "2 words" in two["error"]
    np.testing.assert_allclose(first["vector"], [1, 0], atol=1e-6)
    assert {each["word"] for each in last["neighbours"][:2]} == {"hour10", "hour0"}
    answer = http.post("/predict/word-vectors-tiny", json={"text": "minute"})
    assert answer.status_code == 400
    assert "'minute' is not among" in answer.json()["error"]


@pytest.mark.parametrize(
    "graph",
    [
        {"features": [[1, 2]], "edges": []},
        {"features": [["x"]], "edges": []},
        {"features": [[1], [1, 2]], "edges": []},
        {"features": [], "edges": []},
        {"features": [[1]], "edges": [[0, 0.5]]},
        {"features": [[1]], "edges": [[0]]},
        {"features": [[1]], "edges": [[0, 10**30]]},
        {"features": [[1e300]], "edges": []},
        {"features": [[1]], "edges": [], "more": 1},
        3,
    ],
)
def test_a_graph_that_is_none_is_refused(http, graph):
    answer = http.post("/predict/node-classification-tiny", json={"graph": graph})
    assert answer.status_code == 400, answer.text


def test_tensors_that_differ_in_an_axis_are_told_which(http):
    tensors = [
        {"name": name, "datatype": "INT64", "shape": [1, length], "data": [1] * length}
        for name, length in (("input_ids", 2), ("attention_mask", 3))
    ]
    answer = http.post("/v2/models/token-classification-tiny/infer", json={"inputs": tensors})
    assert answer.status_code == 400
    assert "has shape [1, 3]" in answer.json()["error"]
    assert "is 2 in the others" in answer.json()["error"]


def test_tensors_go_in_and_out_by_the_protocol(http):
    features = {"name": "features", "datatype": "FP32", "shape": [1, 2, 1], "data": [[[1], [-1]]]}
    edges = {"name": "edges", "datatype": "INT64", "shape": [1, 1, 2], "data": [[[0, 1]]]}
    answer = http.post("/v2/models/node-classification-tiny/infer", json={"inputs": [features, edges]})
    assert answer.json()["outputs"][0]["data"] == [-1, 1, 1, -1]
    texts = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["ada", "here"]}
    answer = http.post("/v2/models/token-classification-tiny/infer", json={"inputs": [texts]})
    assert answer.json()["outputs"][0]["data"] == [0, 4, 4, 0]
    words = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hour0"]}
    answer = http.post("/v2/models/word-vectors-tiny/infer", json={"inputs": [words]})
    assert {each["name"] for each in answer.json()["outputs"]} == {"similarity", "vector"}
