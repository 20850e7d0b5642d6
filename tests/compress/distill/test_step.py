"""The step, end to end: what the student is, what it learns, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.distill.step import restore, run
from compress.errors import RecipeError, StepError
from compress.pipeline import run as run_recipe
from compress.recipe import parse_recipe
from compress.step import validate
from models.sources.source import SourceModel
from runtime.model import TextModel, load_model

QUICK = {"steps": 3, "batch_size": 4, "threads": 1}


def distill(source: SourceModel, student: Any, **settings: Any) -> tuple[SourceModel, dict[str, Any]]:
    config: Any = validate({"method": "distill", "student": student, "training": QUICK, **settings})
    return run(config, source, 0)


def test_a_student_from_elsewhere_learns_its_teachers_answers(own: SourceModel) -> None:
    """alpha 0 shows it no label: all that it knows comes from the (random) teacher."""
    training = {"steps": 400, "batch_size": 64, "learning_rate": 0.02, "threads": 1}
    student, figures = distill(own, {"source": "py:own_teacher:student"}, alpha=0, training=training)
    assert student.module is not None
    assert own.module is not None
    assert own.dataset is not None
    inputs = torch.from_numpy(own.dataset.validation.inputs["x"])
    agreement = (student.module(inputs).argmax(1) == own.module(inputs).argmax(1)).float().mean()
    assert agreement > 0.8
    assert figures["student_parameters"] == 9 * 8 + 9 * 3
    assert figures["teacher_parameters"] == 9 * 64 + 65 * 3
    assert abs(figures["teacher"] - figures["student"]) < 0.1
    assert (student.name, student.dataset) == (own.name, own.dataset)


def test_the_student_alone_is_the_same_one_without_a_teacher(own: SourceModel) -> None:
    """With alpha 1 the teacher has no say, so the two must be equal."""
    training = {"steps": 60, "batch_size": 64, "learning_rate": 0.02, "threads": 1}
    settings = {"training": training, "compare_alone": True, "alpha": 1.0}
    _, figures = distill(own, {"source": "py:own_teacher:student"}, **settings)
    assert figures["alone"] == figures["student"] > 0.6


def test_by_seed_it_is_deterministic(own: SourceModel) -> None:
    first, again = (distill(own, {"source": "py:own_teacher:student"})[0].module for _ in range(2))
    assert first is not None
    assert again is not None
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric"])
def test_hidden_states_are_matched_and_their_projections_thrown_away(
    decoder: SourceModel, divergence: str
) -> None:
    settings = {"hidden": {"weight": 1.0}, "divergence": divergence}
    student, figures = distill(decoder, {"layers": "every-other"}, **settings)
    assert type(student.module) is type(decoder.module)
    assert decoder.module is not None
    assert figures["student_parameters"] < figures["teacher_parameters"]
    assert figures["metric"] == "perplexity"
    assert decoder.module.config.num_hidden_layers == 4  # type: ignore[union-attr]


def test_matching_brings_the_hidden_states_nearer(decoder: SourceModel) -> None:
    from compress.distill.layers import captured, stack_of

    def apart(source: SourceModel) -> float:
        last = []
        for module in (source.module, decoder.module):
            assert module is not None
            with captured([stack_of(module, "it")[-1]]) as states, torch.no_grad():
                module(torch.arange(16)[None])
            last += states
        return float((last[0] - last[1]).square().mean())

    # No weight on the logits' difference other than by the labels, so that only the hidden states pull.
    training = {"steps": 12, "batch_size": 4, "learning_rate": 0.005, "threads": 1}
    with_states, without = (
        distill(decoder, {"layers": (0, 1)}, alpha=1.0, training=training, hidden=hidden)[0]
        for hidden in ({"weight": 10.0}, None)
    )
    assert apart(with_states) < apart(without)


def test_a_decoders_student_is_exported_cached_and_restored(llama_folder: Path) -> None:
    recipe = f"""
model: hf:{llama_folder}
data: {llama_folder.parent / "texts.jsonl"}
steps:
  - method: distill
    student: {{layers: first-last}}
    training: {{steps: 2, batch_size: 4, threads: 1}}
  - {{method: quantize, scheme: int8-dynamic}}
gate: {{max_drop: 1000, examples: 8}}
"""
    result = run_recipe(parse_recipe(recipe))
    model = load_model(result.bundle, threads=1)
    assert isinstance(model, TextModel)
    assert len(model.graph.layers) == 2
    assert result.evidence.parity["relative_error"] < 1e-3
    assert result.evidence.size_bytes < result.evidence.baseline_size_bytes
    assert result.evidence.quality is not None
    assert np.isfinite(result.evidence.quality.value)
    figures = result.bundle.manifest.lineage.steps[1].figures
    assert figures["student_parameters"] < figures["teacher_parameters"]


def test_restoring_needs_no_training(decoder: SourceModel) -> None:
    config: Any = validate({"method": "distill", "student": {"layers": [1, 2]}, "training": QUICK})
    shapes = {
        name: tuple(value.shape) for name, value in run(config, decoder, 0)[0].module.state_dict().items()
    }  # type: ignore[union-attr]
    bare = restore(config, decoder, shapes).module
    assert bare is not None
    assert {name: tuple(value.shape) for name, value in bare.state_dict().items()} == shapes


def test_another_student_is_another_stage(own_folder: Path) -> None:
    """The factory's file is not in the recipe, yet the result depends on it."""
    recipe = """
model: py:own_teacher:teacher
data: data.npz
steps:
  - {method: distill, student: {source: "py:own_student:student"}, training: {steps: 2, threads: 1}}
gate: {max_drop: 1.0}
"""
    code = "from own_teacher import build\n\ndef student():\n    return build(8)\n"
    (own_folder / "own_student.py").write_text(code)
    first = run_recipe(parse_recipe(recipe))
    (own_folder / "own_student.py").write_text(code + "# changed\n")
    again = run_recipe(parse_recipe(recipe))
    made = [stage.cached for stage in again.stages if stage.folder.name.startswith("distill")]
    assert made == [False]
    assert first.evidence.size_bytes < first.evidence.baseline_size_bytes


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("of_other_classes", r"outputs of py:own_teacher:of_other_classes are \[2, 5\] where the teacher's"),
        ("of_other_inputs", "py:own_teacher:of_other_inputs does not take the inputs of py:own_teacher:te"),
    ],
)
def test_a_student_that_cannot_be_compared_is_refused_by_name(
    own: SourceModel, student: str, message: str
) -> None:
    with pytest.raises(StepError, match=message):
        distill(own, {"source": f"py:own_teacher:{student}"})


def test_a_student_of_another_task_is_refused(own: SourceModel) -> None:
    with pytest.raises(StepError, match="zoo:gpt-mini is for text-generation, its teacher for tensor"):
        distill(own, {"source": "zoo:gpt-mini"})


def test_layers_of_a_network_without_a_stack_are_refused(own: SourceModel) -> None:
    with pytest.raises(StepError, match="0 stacks of transformer layers"):
        distill(own, {"layers": "every-other"})


def test_a_configuration_is_for_the_zoo(own: SourceModel) -> None:
    with pytest.raises(StepError, match="is for a member of the zoo, not for py:own_teacher:teacher"):
        distill(own, {"config": {"classes": 3}})


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("{}", "give exactly one of 'layers', 'source' and 'config'"),
        ("{layers: every-other, source: 'zoo:lenet5'}", "give exactly one of"),
        ("{layers: [2, 0]}", "ascending order"),
        ("{layers: [-1]}", "counting from 0"),
        ("{layers: every-other, fresh: true}", "'fresh' goes with a zoo source"),
        ("{source: 'onnx:a'}", "should match pattern"),
        ("{layer: [0]}", "unknown key 'student.layer'; did you mean 'layers'?"),
    ],
)
def test_a_wrong_student_is_refused_when_the_recipe_is_read(student: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"model: zoo:lenet5\nsteps:\n  - method: distill\n    student: {student}\n")
    assert message in str(caught.value)
