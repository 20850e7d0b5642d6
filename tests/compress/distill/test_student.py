"""Students from the zoo. LeNet-5 stands for it, with a teacher that is fresh: nothing here is trained."""

from typing import Any

import pytest
import torch

from compress.distill.config import StudentConfig
from compress.distill.student import build_student, check_comparable
from compress.errors import StepError
from models import registry
from models.datasets import load_dataset
from models.sources.source import SourceModel
from models.zoo.member import fresh

SMALLER = {"channels": [4, 8], "hidden": [48, 32]}


@pytest.fixture(scope="module")
def digits() -> SourceModel:
    dataset = load_dataset("digits")
    return SourceModel(
        name="lenet5",
        reference="zoo:lenet5",
        task=dataset.task,
        processing=dataset.processing,
        labels=dataset.labels,
        module=fresh(registry.get("lenet5"), dataset, 0).eval(),
        graph=None,
        input_names=("pixel_values",),
        output_names=("logits",),
        dataset=dataset,
    )


def parameters(module: Any) -> list[torch.Tensor]:
    return list(module.parameters())


def test_a_smaller_configuration_is_the_same_design(digits: SourceModel) -> None:
    student = build_student(StudentConfig(config=SMALLER), digits, 0)
    check_comparable(student, digits, "it")
    convolutions = (25 + 1) * 4 + (4 * 25 + 1) * 8
    linear = (8 * 25 + 1) * 48 + 49 * 32 + 33 * 10
    assert sum(each.numel() for each in parameters(student)) == convolutions + linear


def test_fresh_weights_are_the_seeds(digits: SourceModel) -> None:
    first, same, other = (build_student(StudentConfig(config=SMALLER), digits, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(parameters(first), parameters(same), strict=True))
    assert not torch.equal(parameters(first)[0], parameters(other)[0])


def test_a_fresh_member_is_not_trained(digits: SourceModel) -> None:
    student = build_student(StudentConfig(source="zoo:lenet5", fresh=True), digits, 0)
    assert digits.module is not None
    pairs = zip(parameters(student), parameters(digits.module), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"chanels": [4, 8]}, "zoo:lenet5 has no setting 'chanels'; did you mean 'channels'?"),
        ({"channels": [4]}, "zoo:lenet5 cannot be built with these settings"),
    ],
)
def test_a_wrong_configuration_is_refused(digits: SourceModel, config: Any, message: str) -> None:
    with pytest.raises(StepError) as caught:
        build_student(StudentConfig(config=config), digits, 0)
    assert message in str(caught.value)


def test_a_configuration_with_other_classes_cannot_be_compared(digits: SourceModel) -> None:
    student = build_student(StudentConfig(config={"classes": 7}), digits, 0)
    with pytest.raises(StepError, match=r"\[2, 7\] where the teacher's, zoo:lenet5, are \[2, 10\]"):
        check_comparable(student, digits, "the student of 'config'")


def test_the_layers_that_turn_the_stream_most_are_kept(decoder: SourceModel) -> None:
    """Two layers that add next to nothing are the ones to go."""
    module: Any = decoder.module
    with torch.no_grad():
        for index in (0, 2):
            module.model.layers[index].self_attn.o_proj.weight.mul_(1e-3)
            module.model.layers[index].mlp.down_proj.weight.mul_(1e-3)
    student: Any = build_student(StudentConfig(layers="importance"), decoder, 0)
    kept = [layer.mlp.up_proj.weight for layer in student.model.layers]
    for layer, index in zip(kept, (1, 3), strict=True):
        assert torch.equal(layer, module.model.layers[index].mlp.up_proj.weight)


def test_layers_of_different_shapes_are_not_ranked(decoder: SourceModel) -> None:
    module: Any = decoder.module
    module.model.layers[0].mlp.up_proj = torch.nn.Linear(32, 48, bias=False)
    with pytest.raises(StepError, match="different shapes; list the student's layers"):
        build_student(StudentConfig(layers="importance"), decoder, 0)
