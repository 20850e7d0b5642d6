"""The step on whole recipes: merged, over four bits, and as an adapter beside a quantized base."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.errors import RecipeError, StepError
from compress.lora.step import check, run
from compress.pipeline import Result
from compress.pipeline import run as run_recipe
from compress.recipe import parse_recipe
from compress.step import validate
from models.sources.source import SourceModel
from runtime.bundle import Bundle
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams

TRAINING = {"steps": 12, "batch_size": 8, "learning_rate": 0.02, "threads": 1}


def config(**settings: Any) -> Any:
    return validate({"method": "lora", "rank": 4, "training": TRAINING, **settings})


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"quantized_base": {}}], ids=str)
def test_it_learns_and_leaves_plain_layers(decoder: SourceModel, settings: dict[str, Any]) -> None:
    assert decoder.module is not None
    names = {name for name, _ in decoder.module.named_parameters()}
    changed, figures = run(config(**settings), decoder, 0)
    assert changed.module is not None
    assert {name for name, _ in changed.module.named_parameters()} == names
    assert all(parameter.requires_grad for parameter in changed.module.parameters())
    assert figures["adapted"] < 0.7 * figures["before"]
    assert figures["merged"] == pytest.approx(figures["adapted"], rel=1e-3)
    assert figures["trained_parameters"] < 0.5 * figures["parameters"]
    if settings.get("quantized_base"):
        assert figures["quantized"] != figures["before"]
        assert figures["merged"] < figures["requantized"] < figures["before"]


def test_the_teacher_is_heard(decoder: SourceModel) -> None:
    """With soft targets alone, a teacher that is the model itself leaves nothing to learn."""
    training = {**TRAINING, "distill": {"alpha": 0.0, "temperature": 1.0}}
    _, figures = run(config(training=training), decoder, 0)
    assert figures["adapted"] == pytest.approx(figures["before"], rel=0.02)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))
    return tmp_path


def executed(llama_folder: Path, *steps: str) -> Result:
    listed = "".join(f"  - {step}\n" for step in steps)
    data = llama_folder.parent / "texts.jsonl"
    gate = "{max_drop: null, examples: 4}"
    return run_recipe(parse_recipe(f"model: hf:{llama_folder}\ndata: {data}\nsteps:\n{listed}gate: {gate}\n"))


def test_an_adapter_ships_beside_its_quantized_base(llama_folder: Path, home: Path) -> None:
    step = f"{{method: lora, rank: 4, merge: false, name: cats, quantized_base: {{}}, training: {TRAINING}}}"
    result = executed(llama_folder, step, "{method: quantize, scheme: nf4, head_bits: 32}")
    bundle = result.bundle
    assert bundle.manifest.variant == "qlora-nf4"
    assert set(bundle.manifest.files) >= {"decoder.onnx", "decoder.adapted.onnx", "cats.onnx_adapter"}
    assert result.evidence.quality is not None
    assert result.evidence.quality.value < 0.7 * result.evidence.quality.baseline
    model = load_model(Bundle(bundle.path, bundle.manifest))
    assert isinstance(model, TextModel)
    assert model.adapters.names == ("cats",)
    tokens = np.arange(20).reshape(2, 10)
    base, adapted = model.score(tokens), model.score(tokens, adapter="cats")
    assert np.abs(base - adapted).max() > 0.1
    greedy = SamplingParams(max_tokens=8, temperature=0)
    texts = {"".join(model.generate([1, 2, 3], greedy, adapter=name)) for name in (None, "cats")}
    assert len(texts) == 2
    trained = next(step for step in bundle.manifest.lineage.steps if step.method == "lora").figures
    # What was trained over is what is served: the shipped graph has the perplexity that training ended with,
    # but for the roundings of the device that trained.
    assert trained["adapted"] == pytest.approx(result.evidence.quality.value, rel=0.03)


def test_a_second_run_comes_from_the_cache_and_an_interrupted_one_goes_on(
    llama_folder: Path, home: Path
) -> None:
    step = f"{{method: lora, rank: 4, merge: false, training: {TRAINING}}}"
    executed(llama_folder, step)
    again = executed(llama_folder, step)
    assert all(stage.cached for stage in again.stages)
    # Restored from the stored weights, not from the run that made them.
    after = executed(llama_folder, step, "{method: quantize, scheme: int8-dynamic}")
    assert next(stage for stage in after.stages if stage.figures.get("adapter") == "adapter").cached
    assert after.evidence.quality is not None
    assert again.evidence.quality is not None
    assert after.evidence.quality.value == pytest.approx(again.evidence.quality.value, rel=0.1)


def test_what_cannot_work_is_refused_by_name() -> None:
    with pytest.raises(StepError, match="embedding model has none"):
        check(config(), "embedding")
    with pytest.raises(StepError, match="beside a language model only, not beside image-classification"):
        check(config(merge=False), "image-classification")
    for settings, message in (
        ("merge: false, dora: true", "a DoRA rescales the base's own outputs"),
        ("rank: 0", "rank"),
        ("quantized_base: {scheme: int3}", "scheme"),
        ("name: ../up", "name"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_recipe(f"model: zoo:gpt-mini\nsteps:\n  - {{method: lora, {settings}}}\n")


def test_without_data_it_is_refused_before_anything_changes(llama: Any, decoder: SourceModel) -> None:
    from dataclasses import replace

    before = llama.lm_head.weight.detach().clone()
    with pytest.raises(StepError, match="lora needs a torch model and labelled data"):
        run(config(), replace(decoder, module=llama, dataset=None), 0)
    assert torch.equal(llama.lm_head.weight, before)
