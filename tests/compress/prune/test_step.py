"""The step on whole recipes: from a user's own network to a sparse graph."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.errors import StepError
from compress.pipeline import Result, run
from compress.prune.step import check
from compress.prune.step import run as prune
from compress.recipe import parse_recipe
from compress.step import validate
from models.datasets import Dataset, Split
from models.sources import load_source
from models.sources.source import SourceModel
from runtime.manifest import GenerationProcessing, TensorProcessing

FACTORY = """
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's own network and data, and an empty cache."""
    (tmp_path / "sparse_network.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 8)) + 0.2 * rng.standard_normal((200, 8))
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32), labels=(x[:, 0] > 0).astype(np.int64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("sparse_network", None)
    return tmp_path


def execute(*steps: str) -> Result:
    listed = "".join(f"  - {step}\n" for step in steps)
    model = "model: py:sparse_network:network\ndata: data.npz\n"
    return run(parse_recipe(f"{model}steps:\n{listed}gate: {{max_drop: 1.0}}\n"))


def figures_of(result: Result) -> dict[str, Any]:
    return next(step.figures for step in result.bundle.manifest.lineage.steps if step.method == "prune")


def matrices(result: Result) -> list[np.ndarray]:
    """The graph's matrices as [out, in]."""
    graph = onnx.load(result.bundle.path / result.bundle.manifest.graph.file).graph
    found = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    tables = [each for each in found if each.ndim == 2]
    return [each if each.shape in ((64, 8), (4, 64)) else each.T for each in tables]


def test_pruned_trained_and_quantized_in_one_recipe_it_stays_sparse(workplace: Path) -> None:
    training = "gradual: {events: 4}, finetune: {steps: 12, distill: {}}"
    sparse = f"{{method: prune, criterion: magnitude, ratio: 0.75, scope: layer, {training}}}"
    result = execute(sparse, "{method: quantize, scheme: int8-dynamic}")
    assert result.bundle.manifest.variant == "magnitude-75-int8-dynamic"
    stored = matrices(result)
    assert [each.dtype for each in stored] == [np.int8, np.int8]
    assert sum(int((each == 0).sum()) for each in stored) >= 576
    figures = figures_of(result)
    assert (figures["parameters"], figures["sparsity"]) == (836, 0.75)
    assert figures["nonzero"] <= figures["parameters"] - 576
    assert figures["finetune"]["steps"] == 12


def test_a_pattern_is_exact_in_the_exported_graph(workplace: Path) -> None:
    result = execute(
        "{method: prune, criterion: sparsegpt, pattern: {n: 2, m: 4}, calibration: {samples: 40}}"
    )
    for matrix in matrices(result):
        assert ((matrix.reshape(len(matrix), -1, 4) != 0).sum(-1) == 2).all()
    assert result.evidence.parity["relative_error"] < 1e-4
    assert figures_of(result)["sparsity"] == 0.5


@pytest.mark.parametrize("criterion", ["nm", "wanda", "sparsegpt"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 8)])
def test_every_criterion_keeps_an_exact_pattern(workplace: Path, criterion: str, n: int, m: int) -> None:
    samples = {} if criterion == "nm" else {"calibration": {"samples": 40}}
    pruned, figures = apply(own_network(), criterion=criterion, pattern={"n": n, "m": m}, **samples)
    for name in ("0", "2"):
        weight = pruned.get_submodule(name).weight
        assert isinstance(weight, nn.Parameter)
        assert ((weight.reshape(len(weight), -1, m) != 0).sum(-1) == n).all()
        assert not weight[weight == 0].signbit().any()
    if criterion != "nm":
        layer = figures["layers"]["0"]
        assert set(layer) == {"sparsity", "output_error", "magnitude_output_error"}
        assert layer["output_error"] < layer["magnitude_output_error"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "wanda", "calibration": {"samples": 161}}, "161 calibration samples asked, but"),
        ({"criterion": "magnitude", "targets": ["head"]}, "targets: 'head' matches no Linear or Conv"),
        ({"criterion": "nm", "pattern": {"n": 1, "m": 5}}, r"do not divide the inputs of 0 \(8\), 2 \(64\)"),
        ({"criterion": "magnitude", "ratio": 0.999}, "nothing would be left of 2"),
    ],
)
def test_what_cannot_work_is_refused_by_name(workplace: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=message):
        apply(own_network(), **settings)


def test_without_data_or_labels_it_is_refused_before_anything_changes() -> None:
    network = nn.Sequential(nn.Linear(8, 8))
    before = network[0].weight.detach().clone()
    for settings in ({"criterion": "wanda"}, {"criterion": "magnitude", "finetune": {}}):
        with pytest.raises(StepError, match="give 'data'"):
            prune(validate({"method": "prune", **settings}), source(network), 0)
    assert torch.equal(network[0].weight, before)
    with pytest.raises(StepError, match="needs a torch model"):
        prune(validate({"method": "prune", "criterion": "nm"}), source(None), 0)
    with pytest.raises(StepError, match="no labels to train by"):
        check(validate({"method": "prune", "criterion": "nm", "finetune": {}}), "embedding")


def test_a_convolutional_net_is_pruned_over_all_its_layers() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 4))
    _, figures = apply(source(network), criterion="magnitude", ratio=0.6)
    assert figures["sparsity"] == pytest.approx(0.6, abs=1 / 416)
    assert set(figures["layers"]) == {"0", "3"}
    _, figures = apply(source(network), criterion="nm", pattern={"n": 1, "m": 4})
    assert figures["sparsity"] >= 0.75


class Recurrent(nn.Module):
    """The last state of a GRU over a sequence, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.gru(x)[0][:, -1])
        return logits


@pytest.mark.parametrize("rounds", [{"criterion": "magnitude"}, {"criterion": "iterative", "rounds": 2}])
def test_a_recurrent_net_is_pruned_in_its_recurrent_matrices(rounds: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = Recurrent()
    x = np.random.default_rng(0).standard_normal((40, 6, 4)).astype(np.float32)
    split = Split({"x": x}, (x[:, -1, 0] > 0).astype(np.int64))
    data = Dataset("sequences", "tensor", "", ("0", "1"), TensorProcessing(), lambda name: split)
    training = {"steps": 5, "batch_size": 8, "threads": 1}
    settings = {"ratio": 0.8, "scope": "layer", "targets": ["gru.*"], "finetune": training, **rounds}
    config = validate({"method": "prune", **settings})
    before = network.gru.weight_hh_l0.detach().clone()
    sequences = replace(source(network, data), task="tensor", input_names=("x",))
    _, figures = prune(config, sequences, 0)
    for name, parameter in network.gru.named_parameters():
        zeros = float((parameter == 0).float().mean())
        assert zeros == pytest.approx(0.8, abs=0.02) if "weight" in name else zeros < 0.1
    kept = network.gru.weight_hh_l0 != 0
    assert not torch.equal(network.gru.weight_hh_l0[kept], before[kept])
    assert set(figures["layers"]) == {"gru.weight_ih_l0", "gru.weight_hh_l0"}


def test_a_decoder_is_pruned_block_by_block_and_its_tied_head_is_left_alone(llama: Any) -> None:
    from copy import deepcopy

    module = deepcopy(llama)
    tokens = np.random.default_rng(0).integers(0, 96, (24, 16))
    split = Split({"input_ids": tokens}, tokens)
    data = Dataset("tokens", "text-generation", "", (), GenerationProcessing(), lambda name: split)
    config = validate({"method": "prune", "criterion": "sparsegpt", "calibration": {"samples": 24}})
    _, figures = prune(config, source(module, data), 0)
    layers = figures["layers"]
    assert len(layers) == 14
    assert all(layer["sparsity"] == 0.5 for layer in layers.values())
    assert all(layer["output_error"] < layer["magnitude_output_error"] for layer in layers.values())
    assert torch.equal(module.lm_head.weight, llama.lm_head.weight)


def own_network() -> SourceModel:
    return load_source("py:sparse_network:network", "data.npz")


def apply(source: SourceModel, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    changed, figures = prune(validate({"method": "prune", **settings}), source, 0)
    assert changed.module is not None
    return changed.module, figures


def source(module: Any, dataset: Dataset | None = None) -> SourceModel:
    """A source of `module`: a decoder where there are tokens for it, else a user's own network."""
    return SourceModel(
        name="tiny",
        reference="test:tiny",
        task="text-generation" if dataset else "image-classification",
        processing=GenerationProcessing() if dataset else TensorProcessing(),
        labels=(),
        module=module,
        graph=None,
        input_names=("input_ids",) if dataset else ("x",),
        output_names=("logits",),
        dataset=dataset,
    )


def test_movement_prunes_a_users_network_to_the_ratio(workplace: Path) -> None:
    pruned, figures = apply(
        own_network(),
        criterion="movement",
        ratio=0.6,
        gradual={"events": 3},
        finetune={"steps": 20, "threads": 1, "accumulation": 2},
    )
    assert figures["sparsity"] == pytest.approx(0.6, abs=1 / 768)
    assert all(isinstance(parameter, nn.Parameter) for parameter in pruned.parameters())
    assert {name for name, _ in pruned.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}
