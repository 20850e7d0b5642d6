"""LLM.int8: what is split adds up, and outliers no longer cost the other inputs their resolution."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compress.artifact import GraphArtifact
from compress.export.feedforward import export_feedforward
from compress.quantize.outliers import outlier_columns, separate_outliers, split_columns
from compress.quantize.statistics import input_peaks
from compress.quantize.step import run
from compress.step import Calibration, Figures, validate
from runtime.manifest import Signature
from runtime.session import open_session

PLANTED = [3, 17]


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((64, 5, 32)).astype(np.float32).clip(-4, 4)
    x[..., PLANTED] *= 60
    return x


@pytest.fixture(scope="module", params=["MatMul", "Gemm"])
def layer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, inputs: np.ndarray
) -> tuple[GraphArtifact, np.ndarray, np.ndarray]:
    """A graph whose two layers read one tensor, its inputs, and its weights [out, in] together."""
    torch.manual_seed(0)
    network = Two().eval()
    x = inputs if request.param == "MatMul" else inputs[:, 0]
    folder = tmp_path_factory.mktemp("layer")
    graph = export_feedforward(network, {"x": x}, ["y"], folder / "model.onnx", ragged=x.ndim == 3)
    assert request.param in {node.op_type for node in onnx.load(folder / "model.onnx").graph.node}
    weights = np.concatenate([each.weight.detach().numpy() for each in (network.one, network.other)])
    return GraphArtifact(folder, graph, Signature(inputs=(), outputs=())), x, weights


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(32, 24)
        self.other = torch.nn.Linear(32, 16, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.other(x)], -1)


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    return open_session(path, threads=1).run(None, {"x": x})[0]


def quantized(graph: GraphArtifact, folder: Path, x: np.ndarray, **settings: object) -> tuple[Path, Figures]:
    folder.mkdir()
    calibration = Calibration(lambda samples: iter([{"x": x[:samples]}]))
    made, figures = run(validate({"method": "quantize", **settings}), graph, folder, calibration)
    return made.path, figures


def test_the_two_products_are_the_layers() -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((7, 10)), rng.standard_normal((4, 10)).astype(np.float32)
    outliers = outlier_columns(np.array([0, 6, 5.9] + [1] * 6 + [9], np.float32), 6.0)
    assert np.flatnonzero(outliers).tolist() == [1, 9]
    rest, thin = split_columns(weight, outliers)
    assert thin.shape == (4, 2)
    assert not rest[:, outliers].any()
    np.testing.assert_allclose(np.where(outliers, 0, x) @ rest.T + x[:, outliers] @ thin.T, x @ weight.T)


@pytest.mark.parametrize("threshold", [1e-6, 6.0, 1e6], ids=["all", "some", "none"])
def test_splitting_a_graph_changes_nothing(
    layer: tuple[GraphArtifact, np.ndarray, np.ndarray], tmp_path: Path, threshold: float
) -> None:
    graph, x, _ = layer
    model = onnx.load(graph.path)
    peaks = input_peaks(model, graph.graph, [{"x": x}], tmp_path)
    separated = separate_outliers(model, peaks, threshold)
    onnx.save_model(model, str(tmp_path / "split.onnx"))
    np.testing.assert_allclose(
        outputs(tmp_path / "split.onnx", x), outputs(graph.path, x), rtol=1e-4, atol=1e-3
    )
    share = {1e-6: 1.0, 6.0: len(PLANTED) / 32, 1e6: 0.0}[threshold]
    assert separated.figures()["outlier_share"] == share
    assert bool(separated.in_float) == (share > 0)


def test_outliers_no_longer_widen_the_range(
    layer: tuple[GraphArtifact, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """Against plain int8, and against the definition in numpy, to a rounding step of its narrower range."""
    graph, x, weights = layer
    wanted = outputs(graph.path, x)
    plain, _ = quantized(graph, tmp_path / "plain", x, scheme="int8-dynamic")
    made, figures = quantized(graph, tmp_path / "made", x, scheme="llm-int8", samples=64)
    assert figures["outlier_share"] == len(PLANTED) / 32
    error, plain_error = (np.abs(outputs(path, x) - wanted) for path in (made, plain))
    assert error.mean() < plain_error.mean() / 8
    # |dy| <= sum |x||dw| + |dx||w|: steps of 8 bits over +-4, and of 7 bits over each row of the weight.
    steps = np.abs(weights).max(-1) / 63, 8 / 255
    tame = np.delete(np.abs(x), PLANTED, -1).sum(-1, keepdims=True)
    assert (error <= 0.51 * (tame * steps[0] + steps[1] * np.abs(weights).sum(-1)) + 1e-3).all()


def test_without_outliers_it_is_dynamic_int8(
    layer: tuple[GraphArtifact, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    graph, x, _ = layer
    plain, _ = quantized(graph, tmp_path / "plain", x, scheme="int8-dynamic")
    made, figures = quantized(graph, tmp_path / "made", x, scheme="llm-int8", threshold=1e6)
    assert figures["layers_with_outliers"] == 0
    np.testing.assert_array_equal(outputs(made, x), outputs(plain, x))


def test_a_threshold_that_is_no_magnitude_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        validate({"method": "quantize", "scheme": "llm-int8", "threshold": 0})
