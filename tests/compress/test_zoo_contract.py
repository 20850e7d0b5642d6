"""What every member of the zoo keeps, by being registered: it learns, exports, quantizes, and serves.

Networks are built `tiny` and are not trained to anything. Of each family one member is exported in the
normal run, the others under `slow`, where every member is also trained to its floor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.artifact import GraphArtifact
from compress.export.source import export
from compress.measure import predictor
from compress.quantize.config import Int8Dynamic
from compress.step import Calibration, methods
from models import registry
from models.batches import shuffled_batches
from models.errors import DataError
from models.evaluation import torch_predict
from models.registry import ModelSpec, TrainingRecipe
from models.sources.source import SourceModel
from models.zoo.adversarial import Game
from models.zoo.member import Member, objective_of
from runtime.answers import Run, answer
from runtime.bundle import Bundle
from runtime.model import TextModel, load_model
from runtime.processing import load_tokenizer
from runtime.sampling import SamplingParams
from runtime.tensor import TensorModel
from tests import zoo_members

# Where these are not, their members are skipped: a family is stood for by another, where it has one.
BROUGHT = {"cora", "multi30k", "sentences", "sst2"}
FAMILIES = {
    registry.get(name).family: name
    for name in sorted(reversed(registry.names()), key=lambda name: registry.get(name).dataset not in BROUGHT)
}
BY_EXPORT = [
    pytest.param(name, marks=() if FAMILIES[registry.get(name).family] == name else pytest.mark.slow)
    for name in registry.names()
]

STEP = 1e-4  # of the loss: short enough for a straight line to tell what comes off, long enough for float32


@pytest.fixture(scope="module", autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the data sets make once (tokenizers, encoded text) is made once for all members."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELPRESS_HOME", str(tmp_path_factory.mktemp("zoo")))
        yield


def tiny(name: str) -> tuple[ModelSpec, SourceModel]:
    try:
        return zoo_members.tiny(name)
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", registry.names())
def test_a_step_of_training_lowers_the_loss_on_a_fixed_batch(name: str) -> None:
    spec, source = tiny(name)
    assert source.module is not None
    assert source.dataset is not None
    recipe = TrainingRecipe(steps=1, batch_size=8, learning_rate=1.0)
    batch = shuffled_batches(source.dataset.train, recipe, seed=0)(0, 0.0)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        loss = objective_of(spec)(source.module, batch)
        source.module.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        step_down(who_descends(source.module), losses[-1])
    assert (losses[0] - losses[1]) / abs(losses[0]) == pytest.approx(STEP, rel=0.5)


def who_descends(module: torch.nn.Module) -> torch.nn.Module:
    """All of a module, but of the two players of a game the critic.

    No number falls for both: the loss's value is the critic's, which the generator's step is meant to raise.
    That the generator's gradient is its own, tests/models/zoo/test_adversarial.py holds.
    """
    return module.critic if isinstance(module, Game) else module


def step_down(module: torch.nn.Module, loss: float) -> None:
    """One step against the gradient, as long as takes `STEP` of `loss` off where the slope stays as it is.

    One rate for all members would overshoot where the slope is steep: clip divides by a temperature.
    """
    slopes = [(p, p.grad) for p in module.parameters() if p.grad is not None]
    steepness = sum(float(slope.square().sum()) for _, slope in slopes)
    with torch.no_grad():
        for parameter, slope in slopes:
            parameter -= STEP * abs(loss) / steepness * slope


@dataclass(frozen=True)
class Exported:
    """A tiny member as a bundle in float32, its source, and the same bundle in int8."""

    source: SourceModel
    bundle: Bundle
    int8: Bundle


def exported(name: str, folder: Path) -> Exported:
    _, source = tiny(name)
    (folder / "fp32").mkdir()
    (folder / "int8").mkdir()
    artifact, _ = export(source, folder / "fp32")
    quantized, _ = methods()["quantize"].run(
        Int8Dynamic(scheme="int8-dynamic"), artifact, folder / "int8", Calibration(lambda count: iter(()))
    )
    return Exported(source, _bundle(source, artifact, folder), _bundle(source, quantized, folder))


def _bundle(source: SourceModel, artifact: GraphArtifact, folder: Path) -> Bundle:
    return zoo_members.bundled(source, artifact, folder / f"{artifact.folder.name}-bundle")


@pytest.mark.parametrize("name", BY_EXPORT)
def test_a_bundle_answers_as_torch_does_and_quantizes(name: str, tmp_path: Path) -> None:
    made = exported(name, tmp_path)
    model = load_model(made.bundle)
    if isinstance(model, TextModel) and model.graph.encoder:
        assert_says_what_torch_does(model, made.source)
    elif isinstance(model, TextModel):
        assert_continues_like_torch(model, made.source)
    else:
        assert_answers_like_torch(model, made.source)
    assert_still_runs(made)


def assert_answers_like_torch(model: TensorModel, source: SourceModel) -> None:
    """`predict` on raw examples, against the module's own outputs put into words."""
    assert source.module is not None
    assert source.dataset is not None
    split = source.dataset.validation
    assert split.raw is not None
    inputs = {name: split.inputs[name][:1] for name in source.input_names}
    predict = torch_predict(source.module, source.input_names, source.output_names, source.processing)
    tokenizer = load_tokenizer(source.files["tokenizer.json"]) if source.files else None
    about = (source.task, source.processing, source.labels)
    expected = answer(Run(*about, inputs, predict(inputs), tokenizer, split.raw[:1]))
    assert_close(model.predict([split.raw[0]]), expected)


def assert_continues_like_torch(model: TextModel, source: SourceModel) -> None:
    """Greedy tokens, one after another."""
    assert source.dataset is not None
    module: Any = source.module
    prompt = source.dataset.validation.inputs["input_ids"][0, :12].tolist()
    tokens = list(prompt)
    for _ in range(6):
        with torch.inference_mode():
            tokens.append(int(module(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    said = "".join(model.generate(prompt, SamplingParams(max_tokens=6, temperature=0)))
    assert said == model.tokenizer.decode(tokens[len(prompt) :])


def assert_says_what_torch_does(model: TextModel, source: SourceModel) -> None:
    """Whole answers, to sources of different lengths in one batch."""
    assert source.dataset is not None
    assert source.module is not None
    inputs = {name: values[:5] for name, values in source.dataset.validation.inputs.items()}
    names, tokenizer = (source.input_names, source.output_names), source.files["tokenizer.json"]
    wanted = torch_predict(source.module, *names, source.processing, tokenizer)(inputs)["text"]
    assert len(set(wanted)) > 1
    assert predictor(model)(inputs)["text"].tolist() == wanted.tolist()


def assert_still_runs(made: Exported) -> None:
    """int8 weights: outputs of the same shapes, finite, and near the float32 ones as a whole."""
    assert made.source.dataset is not None
    split = made.source.dataset.validation
    names = [spec.name for spec in made.bundle.manifest.signature.inputs]
    inputs = {name: split.inputs[name][:3] for name in names}
    outputs, quantized = (predictor(load_model(bundle))(inputs) for bundle in (made.bundle, made.int8))
    for name, wanted in outputs.items():
        if wanted.dtype == object:
            assert [type(text) for text in quantized[name]] == [str] * len(wanted)
            continue
        assert np.isfinite(quantized[name]).all()
        scale = float(np.abs(wanted).max())
        assert float(np.abs(quantized[name] - wanted).mean()) < 0.1 * max(scale, 1e-6)


def assert_close(got: Any, wanted: Any) -> None:
    """Nested answers, equal but for the last digits of their numbers."""
    assert type(got) is type(wanted)
    if isinstance(wanted, Mapping):
        assert got.keys() == wanted.keys()
        for key in wanted:
            assert_close(got[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for ours, theirs in zip(got, wanted, strict=True):
            assert_close(ours, theirs)
    elif isinstance(wanted, float):
        assert got == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    else:
        assert got == wanted


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", registry.names())
def test_every_member_reaches_its_floor(name: str) -> None:
    _, _, record = Member(registry.get(name)).obtain()
    assert record["reached_floor"], (record["value"], record["floor_value"])
