"""What is trained is what is exported: the same integers, and the same outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.export.feedforward import export_feedforward
from compress.qat.layers import QuantizedLayer, TrainedLayer, quantizable, replace
from compress.qat.rounding import ACTIVATION, codes
from runtime.session import open_session


class Words(nn.Module):
    """Linear layers over [batch, sequence, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 24), nn.Linear(24, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 20),
        nn.ReLU(),
        nn.Linear(20, 5),
    )


NETWORKS = {"images": (images, (40, 3, 8, 8)), "words": (Words, (8, 7, 12))}


@pytest.fixture(params=[(n, r) for n in NETWORKS for r in ("learned", "moving-average")], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, TrainedLayer], torch.Tensor]:
    """A network under rounding, its layers, and inputs; the first convolution keeps its input."""
    make, shape = NETWORKS[request.param[0]]
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(*shape)
    layers = {
        name: TrainedLayer(layer, request.param[1], rounds_input=name != "0", reduce_range=True)
        for name, layer in quantizable(network).items()
    }
    replace(network, layers)
    network(x)
    for layer in layers.values():
        if layer.inputs:
            layer.inputs.start()
    return network.eval(), layers, x


def to_powers_of_two(layers: dict[str, TrainedLayer]) -> None:
    """Scales with which every sum and product of floats is exact, so that all ways of computing agree."""
    for layer in layers.values():
        layer.weights.ranges = "learned"
        layer.weights.log2_scale.data.ceil_()
        if layer.inputs:
            layer.inputs.start()
            layer.inputs.ranges = "learned"
            layer.inputs.log2_scale.data.ceil_()
        elif layer.layer.bias is not None:
            layer.layer.bias.data = torch.round(layer.layer.bias.data * 256) / 256


def trained_codes(network: nn.Module, layers: dict[str, TrainedLayer], x: torch.Tensor) -> list[np.ndarray]:
    """The uint8 inputs of each layer that rounds its input, as the network in training has them."""
    seen: list[np.ndarray] = []

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(codes(given[0], *module.grid(), ACTIVATION).detach().numpy())

    hooks = [layer.inputs.register_forward_pre_hook(note) for layer in layers.values() if layer.inputs]
    with torch.inference_mode():
        network(x)
    for hook in hooks:
        hook.remove()
    return seen


def exported(network: nn.Module, layers: dict[str, TrainedLayer], x: torch.Tensor, folder: Path) -> Path:
    replace(network, {name: QuantizedLayer.of(layer) for name, layer in layers.items()})
    path = folder / "model.onnx"
    export_feedforward(network, {"x": x.numpy()}, ["y"], path, ragged=x.ndim == 3)
    return path


def graph_codes(path: Path, x: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """The output of every QuantizeLinear node, and the graph's own, node by node as the standard has it."""
    model = onnx.load(path)
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    *integers, y = session.run([*names, "y"], {"x": x.numpy()})
    return integers, y


def test_with_exact_arithmetic_all_agree_bit_for_bit(case: Any, tmp_path: Path) -> None:
    """Torch in training, torch with integers, the graph node by node, and the graph with integer kernels."""
    network, layers, x = case
    x = torch.round(x * 64) / 64
    to_powers_of_two(layers)
    with torch.inference_mode():
        wanted, wanted_codes = network(x).numpy(), trained_codes(network, layers, x)
    path = exported(network, layers, x, tmp_path)
    integers, y = graph_codes(path, x)
    for got, expected in zip(integers, wanted_codes, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(y, wanted)
    with torch.inference_mode():
        np.testing.assert_array_equal(network(x).numpy(), wanted)
    np.testing.assert_array_equal(open_session(path, threads=1).run(None, {"x": x.numpy()})[0], wanted)


def test_with_any_scales_activations_round_alike(case: Any, tmp_path: Path) -> None:
    """The order of float sums may tip a value that lies on the edge between two steps; no more than that."""
    network, layers, x = case
    with torch.inference_mode():
        wanted, wanted_codes = network(x).numpy(), trained_codes(network, layers, x)
    path = exported(network, layers, x, tmp_path)
    integers, _ = graph_codes(path, x)
    for got, expected in zip(integers, wanted_codes, strict=True):
        assert np.abs(got - expected).max() <= 1
        assert (got != expected).mean() < 1e-3
    served = open_session(path, threads=1).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(served, wanted, atol=0.01 * np.abs(wanted).max())


def test_the_graph_stores_the_integers_that_were_trained_with(case: Any, tmp_path: Path) -> None:
    network, layers, x = case
    weights = {name: layer.weights(layer.weight).detach().numpy() for name, layer in layers.items()}
    stored = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(exported(network, layers, x, tmp_path)).graph.initializer
    }
    for name, wanted in weights.items():
        integers, scale = stored[f"{name}.weight_codes"], stored[f"{name}.weight_scale"]
        assert integers.dtype == np.int8
        by_output = integers.T if wanted.ndim == 2 else integers
        got = by_output.astype(np.float32) * scale.reshape(-1, *[1] * (wanted.ndim - 1))
        np.testing.assert_array_equal(got, wanted)
    assert not any(array.dtype == np.float32 and array.ndim > 1 for array in stored.values())


def test_integer_kernels_multiply_wherever_the_input_is_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = images().eval(), torch.randn(40, 3, 8, 8)
    layers = {
        name: TrainedLayer(layer, "learned", rounds_input=name != "0", reduce_range=True)
        for name, layer in quantizable(network).items()
    }
    replace(network, layers)
    network(x)
    for layer in layers.values():
        if layer.inputs:
            layer.inputs.start()
    path = exported(network, layers, x, tmp_path)
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    ort.InferenceSession(path, options)
    fused = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert [fused.count(kind) for kind in ("QLinearConv", "QGemm", "Conv", "Gemm")] == [1, 2, 1, 0]


def test_shared_and_special_layers_are_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.attention, self.own = nn.MultiheadAttention(4, 2), nn.Linear(4, 4)
            self.head.weight = self.embedding.weight

    assert list(quantizable(Shared())) == ["own"]


@pytest.mark.parametrize("rounds_input", [True, False])
def test_what_a_model_asks_its_layer_for_is_there(rounds_input: bool) -> None:
    """Models look at a stride to pad by, or at a weight's dtype to cast to."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(4, 6, 3, stride=2), nn.Linear(5, 3)
    for layer in (convolution, linear):
        trained = TrainedLayer(layer, "moving-average", rounds_input=rounds_input, reduce_range=False)
        quantized = QuantizedLayer.of(trained)
        for each in (trained, quantized):
            assert each.weight.dtype == torch.float32
            assert each.bias.shape == layer.bias.shape
            torch.testing.assert_close(each.weight, layer.weight, rtol=0, atol=0.01)
            with pytest.raises(AttributeError, match="nothing"):
                each.nothing  # noqa: B018
    assert trained.in_features == quantized.in_features == 5
    assert TrainedLayer(convolution, "learned", rounds_input=False, reduce_range=False).stride == (2, 2)


@pytest.mark.parametrize("ranges", ["learned", "moving-average"])
def test_all_that_the_backward_pass_needs_is_where_the_layer_is(ranges: Any) -> None:
    """A GPU takes a scalar of the CPU in some operators only. Here another device stands in for it."""
    layer = TrainedLayer(nn.Linear(4, 3), ranges, rounds_input=True, reduce_range=False)
    layer(torch.randn(5, 4))
    assert layer.inputs is not None
    layer.inputs.start()
    layer.to("meta")
    waiting, seen, saved = [layer(torch.randn(5, 4, device="meta")).grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            saved += getattr(node, "saved_tensors", ())
            waiting += [following for following, _ in node.next_functions]
    assert {tensor.device.type for tensor in saved} == {"meta"}
