"""The quantizers on real graphs: what the kernels compute is what the dequantized weights compute."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.export.feedforward import export_feedforward
from compress.quantize.blockwise import quantize_blocks
from compress.quantize.step import run
from compress.step import Calibration, validate
from runtime.decoder import score
from runtime.manifest import Signature
from runtime.session import open_session

NOTHING = Signature(inputs=(), outputs=())


class Network(torch.nn.Module):
    """A wide and a narrow convolution, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.narrow = torch.nn.Conv2d(3, 32, 3, padding=1)
        self.wide = torch.nn.Conv2d(32, 32, 3, padding=1)
        self.hidden = torch.nn.Linear(32 * 16, 64)
        self.head = torch.nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.wide(torch.relu(self.narrow(image))))
        return self.head(torch.relu(self.hidden(torch.nn.functional.max_pool2d(features, 2).flatten(1))))


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, inputs: np.ndarray) -> GraphArtifact:
    folder = tmp_path_factory.mktemp("network")
    graph = export_feedforward(
        Network().eval(), {"image": inputs}, ["logits"], folder / "model.onnx", ragged=False
    )
    return GraphArtifact(folder, graph, NOTHING)


@pytest.fixture
def decoder(decoder_graph: Any) -> GraphArtifact:
    path, graph = decoder_graph
    return GraphArtifact(path.parent, graph, NOTHING)


def quantize(graph: GraphArtifact, folder: Path, inputs: np.ndarray | None = None, **settings: Any) -> Any:
    def draw(samples: int) -> Any:
        assert inputs is not None
        # Batches that are not all of one size, as a data set gives them.
        return iter([{"image": inputs[at : min(at + 24, samples)]} for at in range(0, samples, 24)])

    return run(validate({"method": "quantize", **settings}), graph, folder, Calibration(draw))


def outputs(graph: GraphArtifact, inputs: np.ndarray) -> np.ndarray:
    return open_session(graph.path, threads=1).run(None, {"image": inputs})[0]


def operators(graph: GraphArtifact) -> set[str]:
    return {node.op_type for node in onnx.load(graph.path).graph.node}


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("settings", "allowed", "smaller"),
    [
        ({"scheme": "fp16"}, 1e-3, 1.9),
        ({"scheme": "bf16"}, 1e-2, 1.9),
        ({"scheme": "int8-dynamic"}, 0.05, 3.5),
        ({"scheme": "int8-static", "calibration": {"samples": 64}}, 0.05, 3.5),
        ({"scheme": "int8-static", "calibration": {"samples": 64, "observer": "entropy"}}, 0.3, 3.5),
        ({"scheme": "int8-static", "calibration": {"samples": 64, "observer": "percentile"}}, 0.05, 3.5),
        ({"scheme": "int8-static", "calibration": {"samples": 40, "observer": "mse"}}, 0.05, 3.5),
        ({"scheme": "int4"}, 0.2, 2.5),
        ({"scheme": "int4", "algorithm": "hqq"}, 0.2, 2.5),
        ({"scheme": "int4", "algorithm": "gptq", "gptq": {"samples": 64}}, 0.1, 2.5),
        ({"scheme": "int4", "algorithm": "awq", "awq": {"samples": 64}}, 0.2, 2.5),
        ({"scheme": "int8-weight-only"}, 0.01, 2.1),
        ({"scheme": "int8-dynamic", "smooth": {"samples": 64}}, 0.05, 3.5),
        ({"scheme": "int8-static", "calibration": {"samples": 64}, "smooth": {"samples": 64}}, 0.05, 3.5),
        ({"scheme": "llm-int8", "samples": 64}, 0.05, 3.5),
        ({"scheme": "nf4"}, 0.2, 2.5),
        ({"scheme": "fp4"}, 0.25, 2.5),
    ],
)
def test_a_convolutional_net_stays_close_and_gets_smaller(
    network: GraphArtifact, inputs: np.ndarray, tmp_path: Path, settings: Any, allowed: float, smaller: float
) -> None:
    made, figures = quantize(network, tmp_path, inputs, **settings)
    assert 0 < distance(outputs(made, inputs), outputs(network, inputs)) < allowed
    assert network.size_bytes / made.size_bytes > smaller
    assert figures["bytes_after"] == made.size_bytes


def test_int8_static_multiplies_in_int8_only_where_kernels_pay(
    network: GraphArtifact, inputs: np.ndarray, tmp_path: Path
) -> None:
    made, _ = quantize(network, tmp_path, inputs, scheme="int8-static", calibration={"samples": 64})
    model = onnx.load(made.path)
    produced = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    from_int8 = [
        (source := produced.get(node.input[0])) is not None and source.op_type == "DequantizeLinear"
        for node in convolutions
    ]
    assert from_int8 == [False, True]
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [produced[node.input[1]].input[0] for node in convolutions]
    assert {stored[name] for name in weights} == {onnx.TensorProto.INT8}


def test_calibration_decides_the_ranges(network: GraphArtifact, inputs: np.ndarray, tmp_path: Path) -> None:
    settings = {"scheme": "int8-static", "calibration": {"samples": 64}}
    (tmp_path / "small").mkdir()
    good, _ = quantize(network, tmp_path, inputs, **settings)
    bad, _ = quantize(network, tmp_path / "small", inputs * 0.01, **settings)
    expected = outputs(network, inputs)
    assert distance(outputs(bad, inputs), expected) > 5 * distance(outputs(good, inputs), expected)


@pytest.mark.parametrize("group_size", [16, 32])
def test_int4_kernels_compute_with_the_weights_that_were_chosen(
    decoder: GraphArtifact, llama: Any, tmp_path: Path, group_size: int
) -> None:
    """The graph equals torch running the dequantized weights; tied embedding and head are stored once."""
    made, _ = quantize(decoder, tmp_path, scheme="int4", group_size=group_size, accuracy_level=0)
    twin = type(llama)(llama.config).eval()
    state = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    for name, tensor in state.items():
        if tensor.ndim == 2:
            bits = 8 if "embed" in name or "head" in name else 4
            state[name] = torch.from_numpy(quantize_blocks(tensor.numpy(), bits, group_size).dequantize())
    twin.load_state_dict(state)
    tokens = np.random.default_rng(0).integers(0, 96, (2, 20))
    got = score(open_session(made.path, threads=1), decoder.graph, tokens)
    wanted = twin(input_ids=torch.from_numpy(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
    stored = onnx.load(made.path).graph.initializer
    assert len([tensor for tensor in stored if tensor.dims[:1] == [96] and tensor.name.endswith(".q")]) == 1


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"scheme": "int8-dynamic"}, 0.1),
        ({"scheme": "int8-dynamic", "smooth": {"samples": 24}}, 0.1),
        ({"scheme": "llm-int8", "threshold": 2.0, "samples": 24}, 0.1),
        ({"scheme": "int8-weight-only"}, 0.05),
        ({"scheme": "int8-weight-only", "algorithm": "gptq", "gptq": {"samples": 24}}, 0.05),
        ({"scheme": "fp16"}, 2e-3),
        ({"scheme": "int4"}, 0.35),
    ],
)
def test_a_quantized_decoder_stays_close(
    decoder: GraphArtifact, tmp_path: Path, settings: Any, allowed: float
) -> None:
    text = np.random.default_rng(1).integers(0, 96, (24, 64))
    made, _ = run(validate({"method": "quantize", **settings}), decoder, tmp_path, windows(text))
    tokens = np.random.default_rng(0).integers(0, 96, (2, 20))
    got, wanted = (score(open_session(g.path, threads=1), g.graph, tokens) for g in (made, decoder))
    assert 0 < distance(got, wanted) < allowed
    assert made.size_bytes < decoder.size_bytes


def windows(tokens: np.ndarray) -> Calibration:
    """Calibration from windows of tokens, as the pipeline gives it for a decoder."""
    return Calibration(lambda samples: iter([{"input_ids": tokens[:samples]}]))


@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "int4", "algorithm": "hqq"},
        {"scheme": "int4", "algorithm": "gptq"},
        {"scheme": "int8-weight-only"},
        {"scheme": "int8-weight-only", "algorithm": "gptq"},
    ],
)
def test_every_algorithm_stores_what_it_chose(
    decoder: GraphArtifact, llama: Any, tmp_path: Path, settings: Any
) -> None:
    """A decoder's graph equals torch running the weights read back from that graph."""
    rng = np.random.default_rng(0)
    config = validate({"method": "quantize", "accuracy_level": 0, **settings})
    made, figures = run(config, decoder, tmp_path, windows(rng.integers(0, 96, (24, 64))))
    twin = type(llama)(llama.config).eval()
    twin.load_state_dict(llama.state_dict())
    stored = stored_matrices(made)
    for layer in [each for each in twin.modules() if isinstance(each, torch.nn.Linear | torch.nn.Embedding)]:
        rows = layer.weight.shape[0]
        nearest = min(parts(stored, rows), key=lambda matrix: mismatch(matrix, layer.weight.detach().numpy()))
        layer.weight.data = torch.from_numpy(nearest)
    tokens = rng.integers(0, 96, (2, 20))
    got = score(open_session(made.path, threads=1), decoder.graph, tokens)
    wanted = twin(input_ids=torch.from_numpy(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
    if settings.get("algorithm") == "gptq":
        assert figures["output_error"] < 0.9 * figures["output_error_by_rounding"]


def stored_matrices(graph: GraphArtifact) -> list[np.ndarray]:
    """Every product's weight [out, in], from the packed bytes, as the operator's documentation reads them."""
    model = onnx.load(graph.path)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = []
    for node in [node for node in model.graph.node if node.op_type == "MatMulNBits"]:
        packed, scales, zeros = (arrays[name] for name in node.input[1:4])
        bits = next(a.i for a in node.attribute if a.name == "bits")
        if bits == 4:
            packed = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)
            zeros = np.stack([zeros & 15, zeros >> 4], -1).reshape(len(zeros), -1)
        zeros = zeros[:, : scales.shape[1], None].astype(np.float32)
        found.append(((packed - zeros) * scales[..., None]).reshape(len(packed), -1).astype(np.float32))
    return found


def parts(matrices: list[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Every run of `rows` outputs: exported products that read the same tensor are joined."""
    for matrix in matrices:
        for start in range(0, len(matrix) - rows + 1, 8):
            yield matrix[start : start + rows]


def mismatch(matrix: np.ndarray, weight: np.ndarray) -> float:
    return distance(matrix, weight) if matrix.shape == weight.shape else np.inf


def test_looking_at_data_keeps_a_decoder_closer_than_rounding(decoder: GraphArtifact, tmp_path: Path) -> None:
    """On text that is predictable, as text is, and that calibration has not seen."""
    rng = np.random.default_rng(0)
    text = rng.choice(12, (80, 64), p=np.arange(12, 0, -1) / 78)
    distances = {}
    for algorithm in ("rtn", "gptq", "awq"):
        folder = tmp_path / algorithm
        folder.mkdir()
        settings = {"algorithm": algorithm, "accuracy_level": 0, "group_size": 32}
        config = validate({"method": "quantize", "scheme": "int4", **settings})
        made, figures = run(config, decoder, folder, windows(text[:64]))
        if algorithm != "rtn":
            assert figures["output_error"] < figures["output_error_by_rounding"]
        got, wanted = (score(open_session(g.path, threads=1), g.graph, text[64:]) for g in (made, decoder))
        distances[algorithm] = distance(got, wanted)
    assert distances["gptq"] < 0.8 * distances["rtn"]
    assert distances["awq"] < distances["rtn"]


def test_settings_that_nothing_would_read_are_refused() -> None:
    gptq = {"method": "quantize", "scheme": "int4", "gptq": {"samples": 8}}
    with pytest.raises(ValueError, match="read by 'algorithm: gptq' only"):
        validate(gptq)
    assert validate({**gptq, "algorithm": "gptq"}).variant == "int4-gptq"
    assert validate({"method": "quantize", "scheme": "int4"}).variant == "int4"


def test_each_scheme_uses_its_own_kernels(decoder: GraphArtifact, tmp_path: Path) -> None:
    for scheme, expected in (("int8-dynamic", "MatMulInteger"), ("int4", "MatMulNBits"), ("fp16", "Cast")):
        folder = tmp_path / scheme
        folder.mkdir()
        assert expected in operators(quantize(decoder, folder, scheme=scheme)[0])


def test_clipped_halves_are_counted(tmp_path: Path) -> None:
    from compress.quantize.fp16 import store_half

    weight = np.full((40, 40), 1e6, np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 40]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")]
    )
    assert store_half(onnx.helper.make_model(graph)) == {"weights": 1600, "clipped": 1600}


def test_vectors_stay_as_they_are_for_they_may_be_scales(tmp_path: Path) -> None:
    from compress.quantize.fp16 import store_half

    values = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    tensors = [numpy_helper.from_array(values, "s"), numpy_helper.from_array(values.reshape(40, 100), "w")]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    assert store_half(model)["weights"] == 4000
    assert {tensor.name for tensor in model.graph.initializer} == {"s", "w.half"}


def test_a_decoder_is_refused_for_static_ranges() -> None:
    from compress.quantize.step import check

    with pytest.raises(StepError, match="use int8-dynamic or int4"):
        check(validate({"method": "quantize", "scheme": "int8-static"}), "text-generation")
