"""Sensitivity is what really happens to the outputs, and budgets hold in the file that is made."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from pydantic import ValidationError

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.export.feedforward import export_feedforward
from compress.quantize.blockwise import quantize_blocks
from compress.quantize.sensitivity import divergence, relative_error
from compress.quantize.step import run
from compress.step import Calibration, validate
from runtime.decoder import score
from runtime.manifest import Signature
from runtime.session import open_session

NOTHING = Signature(inputs=(), outputs=())


def mixed(graph: GraphArtifact, folder: Path, inputs: dict[str, np.ndarray], **settings: Any) -> Any:
    config = validate({"method": "quantize", "scheme": "mixed", "accuracy_level": 0, **settings})
    return run(config, graph, folder, Calibration(lambda n: iter([{k: v[:n] for k, v in inputs.items()}])))


@pytest.fixture
def network(tmp_path: Path) -> tuple[torch.nn.Module, GraphArtifact, np.ndarray]:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.Tanh(), torch.nn.Linear(48, 6)).eval()
    x = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "model.onnx"
    graph = export_feedforward(module, {"x": x}, ["logits"], path, ragged=False)
    return module, GraphArtifact(path.parent, graph, NOTHING), x


def test_sensitivity_is_torchs_divergence_with_that_one_weight_rounded(network: Any, tmp_path: Path) -> None:
    module, artifact, x = network
    _, figures = mixed(artifact, tmp_path, {"x": x}, budget={"bits": 16}, samples=40)
    wanted = torch.log_softmax(module(torch.from_numpy(x)).double(), -1).detach()
    for layer, measured in zip((module[0], module[2]), figures["sensitivity"].values(), strict=True):
        kept = layer.weight.data
        for bits in (4, 8):
            layer.weight.data = torch.from_numpy(quantize_blocks(kept.numpy(), bits, 64).dequantize())
            got = torch.log_softmax(module(torch.from_numpy(x)).double(), -1).detach()
            expected = float((wanted.exp() * (wanted - got)).sum(-1).mean())
            assert measured[str(bits)] == pytest.approx(expected, rel=0.02)
        layer.weight.data = kept
        assert measured["4"] > 10 * measured["8"] > 0


@pytest.mark.parametrize("bits", [5.5, 7.0, 9.5, 13.0])
def test_what_is_stored_keeps_to_the_budget(decoder_graph: Any, tmp_path: Path, bits: float) -> None:
    path, graph = decoder_graph
    artifact = GraphArtifact(path.parent, graph, NOTHING)
    tokens = np.random.default_rng(0).integers(0, 96, (4, 32))
    made, figures = mixed(
        artifact, tmp_path, {"input_ids": tokens}, budget={"bits": bits}, samples=2, group_size=32
    )
    assert figures["bits_per_weight"] <= bits
    packed = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(made.path).graph.initializer
        if tensor.name.endswith((".q", ".s", ".z", ".half"))
    ]
    # A row's zero points of 4 bits fill whole bytes.
    stored = 8 * sum(array.nbytes for array in packed) / figures["weights"]
    assert stored == pytest.approx(figures["bits_per_weight"], rel=0.02)
    got, wanted = (score(open_session(g.path, threads=1), graph, tokens) for g in (made, artifact))
    assert np.linalg.norm(got - wanted) < 0.4 * np.linalg.norm(wanted)


def test_more_bits_do_less_damage_and_sensitive_weights_get_them(decoder_graph: Any, tmp_path: Path) -> None:
    path, graph = decoder_graph
    artifact = GraphArtifact(path.parent, graph, NOTHING)
    tokens = np.random.default_rng(0).integers(0, 96, (4, 32))
    damages = []
    for bits in (5.2, 6.0, 8.0, 12.0):
        (folder := tmp_path / str(bits)).mkdir()
        _, figures = mixed(
            artifact, folder, {"input_ids": tokens}, budget={"bits": bits}, samples=2, group_size=32
        )
        damages.append(figures["predicted_damage"])
    assert damages == sorted(damages, reverse=True)
    assert damages[-1] < 0.1 * damages[0]
    names = list(figures["sensitivity"])
    assert any(name.endswith("embed_tokens") for name in names)
    assert any(name.endswith("layers.0.self_attn.q_proj+k_proj+v_proj") for name in names)


def test_a_budget_that_cannot_be_met_is_refused_with_the_least_that_can(network: Any, tmp_path: Path) -> None:
    _, artifact, x = network
    with pytest.raises(StepError, match=r"budget.bits: 4 is below the \d\.\d\d that 4 bits and their scales"):
        mixed(artifact, tmp_path, {"x": x}, budget={"bits": 4})


@pytest.mark.parametrize("limit", [0.9, 0.02, 1e-4])
def test_a_quality_budget_takes_the_fewest_bits_that_measurements_allow(
    network: Any, tmp_path: Path, limit: float
) -> None:
    """`drop` is measured here by the outputs' error; that of the file made is what the figures say."""
    _, artifact, x = network
    wanted = open_session(artifact.path).run(None, {"x": x})[0]

    def drop(before: GraphArtifact, after: GraphArtifact, examples: int) -> float:
        got = open_session(after.path).run(None, {"x": x[:examples]})[0]
        return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))

    settings = {"budget": {"max_drop": limit, "examples": 40}, "accuracy_level": 0, "samples": 40}
    config = validate({"method": "quantize", "scheme": "mixed", **settings})
    if limit == 1e-4:
        with pytest.raises(StepError, match=r"budget.max_drop: 0.0001 is below the 0\.\d+ that was measured"):
            run(config, artifact, tmp_path, Calibration(lambda n: iter([{"x": x[:n]}]), drop))
        return
    made, figures = run(config, artifact, tmp_path, Calibration(lambda n: iter([{"x": x[:n]}]), drop))
    assert drop(artifact, made, 40) == pytest.approx(figures["drop"])
    assert figures["drop"] <= limit
    smaller = [trial for trial in figures["trials"] if trial["bits"] < figures["bits_per_weight"]]
    assert all(trial["drop"] > limit for trial in smaller)
    assert bool(smaller) == (limit < 0.9)


@pytest.mark.parametrize("budget", [{}, {"bits": 5, "max_drop": 0.1}])
def test_a_budget_is_one_thing(budget: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="give either 'bits' or 'max_drop'"):
        validate({"method": "quantize", "scheme": "mixed", "budget": budget})


def test_the_measures_are_zero_for_what_is_the_same_and_known_for_what_is_not() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    other = np.log(np.array([[0.25, 0.5, 0.25]], np.float32)) + 3
    assert divergence(logits, logits + 7) == pytest.approx(0, abs=1e-6)
    assert divergence(logits, other) == pytest.approx(0.25 * np.log(2), rel=1e-5)
    assert relative_error(np.ones(4), np.ones(4) * 1.5) == pytest.approx(0.25)
