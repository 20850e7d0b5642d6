"""The step as a recipe runs it: chosen, cut, fine-tuned, stored, restored, exported; and what it refuses."""

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.errors import RecipeError, StepError
from compress.pipeline import run as run_recipe
from compress.recipe import load_recipe, parse_recipe
from compress.shrink.config import ShrinkConfig
from compress.shrink.step import check, difference, restore, run
from compress.weights import load_weights, save_weights, stored_shapes
from models.sources.source import SourceModel
from tests.paths import RECIPES

MakeSource = Callable[..., SourceModel]

NETWORK = """
import torch
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 40), nn.ReLU(), nn.Linear(40, 2),
    )
"""
RECIPE = """
model: py:own_network:network
data: data.npz
steps:
  - method: shrink
    remove: {channels: 0.5}
    importance: taylor
    calibration: {samples: 64}
    finetune: {steps: 20, distill: {temperature: 2.0}}
  - {method: quantize, scheme: int8-dynamic}
gate: {max_drop: 1.0}
"""


def configured(**settings: Any) -> ShrinkConfig:
    return ShrinkConfig.model_validate({"method": "shrink", **settings})


def reloaded(config: ShrinkConfig, changed: SourceModel, original: SourceModel, folder: Path) -> SourceModel:
    """What another process would get: the stored weights in a fresh source of the same structure."""
    save_weights(changed, folder)
    fresh = restore(config, replace(original, module=deepcopy(original.module)), stored_shapes(folder))
    load_weights(fresh, folder)
    return fresh


@pytest.fixture
def decoder(llama: Any, make_source: MakeSource) -> SourceModel:
    numbers = np.random.default_rng(0).integers(0, 96, (12, 17))
    return make_source(deepcopy(llama), {"input_ids": numbers[:, :-1]}, numbers[:, 1:], "text-generation")


@pytest.fixture
def encoder(bert: Any, make_source: MakeSource) -> SourceModel:
    from models.sources.wrappers import EncoderModule

    rng = np.random.default_rng(0)
    inputs = {"input_ids": rng.integers(0, 64, (12, 9)), "attention_mask": np.ones((12, 9), np.int64)}
    module = EncoderModule(deepcopy(bert), "logits")
    return make_source(module, inputs, rng.integers(0, 3, 12), "text-classification")


def test_a_users_own_network_is_shrunk_tuned_quantized_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_network.py").write_text(NETWORK)
    x = np.random.default_rng(0).standard_normal((160, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=(x.mean((1, 2, 3)) > 0).astype(np.int64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_network", None)
    result = run_recipe(parse_recipe(RECIPE))
    assert result.bundle.manifest.variant == "shrink-int8-dynamic"
    figures = next(step for step in result.bundle.manifest.lineage.steps if step.method == "shrink").figures
    assert figures["kept"] == {"0": 8, "4": 8, "7": 20}
    assert figures["whole"] == {"9": "the network's output"}
    assert figures["finetune"]["steps"] == 20
    assert figures["parameters_after"] < figures["parameters_before"] / 3
    assert figures["masked_difference"] < 1e-5
    assert result.evidence.size_bytes < result.evidence.baseline_size_bytes / 3
    assert result.evidence.parity["relative_error"] < 1e-4


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_decoder_is_shrunk_in_every_way_and_restored_from_its_shapes(
    decoder: SourceModel, llama: Any, tmp_path: Path, importance: str, scope: str
) -> None:
    config = configured(
        remove={"ffn": 0.4, "heads": 0.5, "layers": 0.5} if scope == "layer" else {"ffn": 0.4, "heads": 0.25},
        importance=importance,
        scope=scope,
        round_to=8,
        calibration={"samples": 8, "batch_size": 4},
    )
    changed, figures = run(config, decoder, 0)
    assert figures["masked_difference"] < 1e-5
    assert all(kept % 8 == 0 for name, kept in figures["kept"].items() if name.endswith("mlp"))
    assert figures["parameters_after"] < figures["parameters_before"]
    assert len(changed.module.model.layers) == len(figures.get("layers_kept", [0, 1]))  # type: ignore[union-attr]
    if scope == "global":
        assert sum(kept for name, kept in figures["kept"].items() if name.endswith("attn")) == 3
    original = replace(decoder, module=llama)
    fresh = reloaded(config, changed, original, tmp_path)
    batch = {"input_ids": torch.arange(20).view(2, 10)}
    assert difference(fresh.module, changed.module, batch) == 0  # type: ignore[arg-type]
    whole = sum(parameter.numel() for parameter in llama.parameters()) * 4
    assert (tmp_path / "model.safetensors").stat().st_size < whole


def test_an_encoder_inside_its_wrapper_is_shrunk_and_restored(
    encoder: SourceModel, bert: Any, tmp_path: Path
) -> None:
    from models.sources.wrappers import EncoderModule

    config = configured(remove={"ffn": 0.5, "heads": 0.5, "layers": 0.5})
    changed, figures = run(config, encoder, 0)
    (layer,) = figures["layers_kept"]
    place = f"model.bert.encoder.layer.{layer}"
    assert figures["kept"] == {place: 24, f"{place}.attention": 2}
    original = replace(encoder, module=EncoderModule(bert, "logits"))
    fresh = reloaded(config, changed, original, tmp_path)
    batch = {
        "input_ids": torch.arange(20).view(2, 10),
        "attention_mask": torch.ones(2, 10, dtype=torch.int64),
    }
    assert difference(fresh.module, changed.module, batch) == 0  # type: ignore[arg-type]


def test_the_code_recipe_on_a_tiny_decoder(decoder: SourceModel, llama: Any, tmp_path: Path) -> None:
    """Its settings as they stand, but for sizes that a tiny model can give."""
    step = load_recipe(next(path for path in RECIPES if path.name == "code-shrunk.yaml")).steps[0]
    assert isinstance(step, ShrinkConfig)
    assert step.finetune is not None
    tuning = step.finetune.model_copy(update={"steps": 3})
    samples = step.calibration.model_copy(update={"samples": 8})
    config = step.model_copy(update={"finetune": tuning, "calibration": samples, "round_to": 4})
    changed, figures = run(config, decoder, 0)
    assert figures["finetune"]["steps"] == 3
    assert sum(figures["kept"].values()) < 0.75 * 128
    fresh = reloaded(config, changed, replace(decoder, module=llama), tmp_path)
    assert difference(fresh.module, changed.module, {"x": torch.arange(20).view(2, 10)}) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("{}", "say what to remove"),
        ("{channels: 0.5, ffn: 0.5}", "one or the other"),
        ("{ffn: 1.0}", "less than 1"),
        ("{ffn: 0}", "greater than 0"),
        ("{fnn: 0.5}", "unknown key 'remove.fnn'; did you mean 'ffn'"),
    ],
)
def test_a_mistake_in_the_recipe_is_named(remove: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(f"model: zoo:lenet5\nsteps:\n  - {{method: shrink, remove: {remove}}}\n")


def test_what_a_task_cannot_take_is_refused_before_any_work() -> None:
    with pytest.raises(StepError, match="for text-generation, shrink removes ffn, heads or layers"):
        check(configured(remove={"channels": 0.5}), "text-generation")
    with pytest.raises(StepError, match="'taylor' needs a loss"):
        check(configured(remove={"ffn": 0.5}, importance="taylor"), "embedding")
    check(configured(remove={"ffn": 0.5}, importance="taylor"), "text-generation")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"remove": {"channels": 0.5}}, "is a transformers model; remove its ffn, heads or layers"),
        (
            {"remove": {"heads": 0.3}},
            "'heads: 0.3' removes nothing where a layer has 2 of them; ask for more",
        ),
        ({"remove": {"ffn": 0.3}, "round_to": 64}, "a layer has 64 of them and round_to is 64"),
        ({"remove": {"layers": 0.3}}, r"removes none of 2 layers; ask for at least 0\.50"),
        ({"remove": {"ffn": 0.3}, "importance": "taylor"}, "256 calibration samples asked, but tiny has 12"),
    ],
)
def test_what_a_decoder_cannot_give_is_refused(decoder: SourceModel, settings: Any, message: str) -> None:
    with pytest.raises(StepError, match=message):
        run(configured(**settings), decoder, 0)


def test_what_a_network_cannot_give_is_refused(make_source: MakeSource) -> None:
    x = np.zeros((4, 6), np.float32)
    single = make_source(torch.nn.Linear(6, 2), {"x": x})
    with pytest.raises(StepError, match="ffn are of transformers models; remove channels instead"):
        run(configured(remove={"ffn": 0.5}), single, 0)
    with pytest.raises(StepError, match=r"no channels can go \(.*the network's output"):
        run(
            configured(remove={"channels": 0.5}), make_source(torch.nn.Sequential(single.module), {"x": x}), 0
        )
    two = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 2))
    config = configured(remove={"channels": 0.5}, importance="taylor", calibration={"samples": 4})
    with pytest.raises(StepError, match="tiny has no labels, and 'taylor' needs a loss"):
        run(config, make_source(two, {"x": x}), 0)
    graph = replace(single, module=None, graph=Path("model.onnx"))
    with pytest.raises(StepError, match="this is a graph already"):
        run(configured(remove={"channels": 0.5}), graph, 0)


@pytest.mark.parametrize("remove", [{"heads": 0.5}, {"flops": 0.3}])
def test_a_model_of_one_size_is_named_however_its_cut_is_asked_for(
    make_source: MakeSource, remove: dict[str, float]
) -> None:
    """Swin's table of positions is as wide as it has heads, and nothing here knows that."""
    from transformers import SwinConfig, SwinForImageClassification

    from models.sources.wrappers import ImageModule

    sizes = {"image_size": 8, "patch_size": 2, "num_channels": 1, "window_size": 2}
    network = SwinForImageClassification(SwinConfig(embed_dim=8, depths=[1], num_heads=[2], **sizes))
    images = np.zeros((4, 1, 8, 8), np.float32)
    source = make_source(ImageModule(network.eval()), {"x": images}, None, "image-classification")
    with pytest.raises(StepError, match="does not run at other sizes"):
        run(configured(remove=remove), source, 0)


class Stubborn(torch.nn.Module):
    """Its width is written into its forward, where tracing cannot see that it matters."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(6, 4), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x) * 4 / self.one.out_features)


def test_a_net_whose_arithmetic_depends_on_its_width_is_found_out(make_source: MakeSource) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    with pytest.raises(StepError, match="shrunk, it differs from the masked model by"):
        run(configured(remove={"channels": 0.5}), make_source(Stubborn(), {"x": x}), 0)
