"""What is added up in the graph is what torch's own layers see."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.errors import StepError
from compress.export.feedforward import export_feedforward
from compress.quantize.statistics import input_products


def layer_inputs(module: torch.nn.Module, *inputs: torch.Tensor, **named: Any) -> dict[str, np.ndarray]:
    """The rows that each linear layer of `module` is given, float64."""
    seen: dict[str, np.ndarray] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: seen.update({name: given[0].flatten(0, -2).double().numpy()})
        )
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    with torch.inference_mode():
        module(*inputs, **named)
    for hook in hooks:
        hook.remove()
    return seen


def assert_same(found: dict[str, np.ndarray], rows: list[np.ndarray]) -> None:
    """The matrices found are those of `rows`, whatever they are called."""
    assert len(found) == len(rows)
    for wanted in (each.T @ each for each in rows):
        distances = [
            float(np.abs(each - wanted).max()) for each in found.values() if each.shape == wanted.shape
        ]
        assert min(distances) < 1e-4 * np.abs(wanted).max()


@pytest.fixture
def network(tmp_path: Path) -> tuple[torch.nn.Module, Any, Path]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    path = tmp_path / "model.onnx"
    graph = export_feedforward(module, {"x": np.zeros((2, 6), np.float32)}, ["y"], path, ragged=False)
    return module, graph, path


def test_batches_of_any_size_add_up_to_all_the_rows(network: Any, tmp_path: Path) -> None:
    module, graph, path = network
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    batches = [{"x": x[:32]}, {"x": x[32:]}]
    found = input_products(onnx.load(path), graph, batches, tmp_path)
    assert_same(found, list(layer_inputs(module, torch.from_numpy(x)).values()))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_decoder_sees_whole_windows(decoder_graph: Any, llama: Any, tmp_path: Path) -> None:
    """Longer windows than the context are cut; layers that share an input share a matrix; the tied head has
    none."""
    path, graph = decoder_graph
    tokens = np.random.default_rng(0).integers(0, 96, (3, graph.context_length + 9))
    found = input_products(onnx.load(path), graph, [{"input_ids": tokens}], tmp_path)
    seen = layer_inputs(llama, input_ids=torch.from_numpy(tokens[:, : graph.context_length]))
    kept = [name for name in seen if not name.endswith(("k_proj", "v_proj", "up_proj", "lm_head"))]
    assert_same(found, [seen[name] for name in kept])


def test_inputs_that_the_graph_refuses_are_one_line(network: Any, tmp_path: Path) -> None:
    _, graph, path = network
    with pytest.raises(StepError, match="the graph refuses the calibration inputs") as caught:
        input_products(onnx.load(path), graph, [{"x": np.zeros((2, 5), np.float32)}], tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(StepError, match="not finite"):
        input_products(onnx.load(path), graph, [{"x": np.full((2, 6), np.nan, np.float32)}], tmp_path)
    assert not (tmp_path / "observed.onnx").exists()
