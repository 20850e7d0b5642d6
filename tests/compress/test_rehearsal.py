"""What cannot work is refused by name before any stage of a recipe has begun, wherever in it it stands."""

from pathlib import Path

import numpy as np
import pytest

from compress.errors import StepError
from compress.pipeline import run
from compress.recipe import load_recipe, parse_recipe
from compress.rehearsal import rehearse
from models.registry import get
from models.sources import load_untrained
from models.zoo.member import Member
from runtime.errors import ModelpressError
from tests.paths import RECIPES

DISTILL = "{method: distill, student: {source: 'py:own_teacher:student'}, training: {steps: 2}}"
OTHERS = "{method: distill, student: {source: 'py:own_teacher:of_other_classes'}}"
SHRINK = "{method: shrink, remove: {channels: 0.5}, importance: taylor, finetune: {steps: 2}}"


def refused(
    *steps: str, model: str = "py:own_teacher:teacher", data: str = "data.npz"
) -> tuple[str, list[str]]:
    """What the run says, and the stages that it had begun by then."""
    begun: list[str] = []
    lines = "\n".join(f"  - {step}" for step in steps)
    recipe = parse_recipe(f"model: {model}\ndata: {data}\nsteps:\n{lines}\n")
    with pytest.raises(ModelpressError) as caught:
        run(recipe, lambda name, stage: begun.append(name))
    return str(caught.value), begun


@pytest.mark.parametrize(
    ("early", "late", "message"),
    [
        (DISTILL, "{method: prune, criterion: nm, targets: ['3']}", "targets: '3' matches no Linear or Conv"),
        (
            DISTILL,
            "{method: prune, criterion: wanda, calibration: {samples: 999}}",
            "999 calibration samples",
        ),
        # The teacher's layers would do: it is the student's that are too narrow.
        (DISTILL, "{method: lora, rank: 16}", "rank 16 is above the full rank of 0 (8)"),
        (DISTILL, "{method: factorize, rank: 16}", "rank 16 is above the rank of '0', which is 8"),
        (DISTILL, "{method: qat, exclude: ['head']}", "exclude: 'head' matches no linear or convolution"),
        (DISTILL, "{method: shrink, remove: {ffn: 0.5}}", "ffn are of transformers models"),
        (DISTILL, OTHERS, "they cannot be compared"),
        (
            SHRINK,
            "{method: factorize, algorithm: svd-llm, rank: 2, calibration: {samples: 999}}",
            "999 calib",
        ),
        (
            "{method: factorize, rank: 3, targets: ['0']}",
            "{method: prune, criterion: nm, targets: ['0']}",
            "'0' matches no Linear or Conv",
        ),
        (
            "{method: lora, rank: 2}",
            "{method: quantize, scheme: int8-static, calibration: {samples: 999}}",
            "999 calib",
        ),
    ],
)
@pytest.mark.usefixtures("own_folder")
def test_a_later_steps_mistake_is_found_before_the_first_trains(early: str, late: str, message: str) -> None:
    text, begun = refused(early, late)
    assert message in text
    assert "\n" not in text
    assert not begun


@pytest.mark.usefixtures("own_folder")
def test_a_member_of_the_zoo_is_not_trained_for_a_recipe_that_cannot_work() -> None:
    """Nor is one that would be the student; and data of another shape than it takes is refused with both."""
    text, begun = refused(
        "{method: prune, criterion: nm, targets: [conv9]}", model="zoo:lenet5", data="digits"
    )
    assert "'conv9' matches no" in text
    student = "{method: distill, student: {source: 'zoo:bert'}}"
    text, also = refused(student, model="zoo:lenet5", data="digits")
    assert "zoo:bert is for text-classification" in text
    assert not begun + also
    for name in ("lenet5", "bert"):
        assert not Member(get(name)).folder.exists()


@pytest.mark.usefixtures("own_folder")
def test_data_of_another_shape_is_refused_with_it() -> None:
    text, begun = refused("{method: lora}", model="py:own_teacher:of_other_inputs")
    assert "does not take examples of data.npz ('x' [8])" in text
    assert not begun


def test_a_label_that_the_network_has_no_class_for_is_refused(own_folder: Path) -> None:
    x = np.zeros((20, 8), np.float32)
    np.savez(own_folder / "labels.npz", x=x, labels=np.arange(20) % 4)
    training = "{method: prune, criterion: magnitude, finetune: {steps: 2}}"
    text, begun = refused(training, data="labels.npz")
    assert "the data has the label 3, and the model tells 3 classes apart, 0 to 2" in text
    assert not begun


def test_a_network_that_returns_no_tensor_is_named(own_folder: Path) -> None:
    """The first step would fail at it: what it takes is not the matter."""
    network = own_folder / "own_tuple.py"
    network.write_text(
        "import torch\nclass Pair(torch.nn.Linear):\n    def forward(self, x):\n"
        "        return {'scores': super().forward(x)}\ndef pair():\n    return Pair(8, 3)\n"
    )
    text, begun = refused("{method: prune, ratio: 0.5, criterion: magnitude}", model="py:own_tuple:pair")
    assert "py:own_tuple:pair: returns a dict; let its forward return a tensor" in text
    assert not begun


def test_untrained_it_has_the_members_names_and_shapes() -> None:
    source = load_untrained("zoo:lenet5", seed=3)
    assert source.module is not None
    assert sum(each.numel() for each in source.module.parameters()) == get("lenet5").parameters
    assert source.labels == tuple("0123456789")


@pytest.mark.parametrize("path", [path for path in RECIPES if path.name.startswith("digits")], ids=str)
def test_what_works_is_let_through(path: Path) -> None:
    rehearse(load_recipe(path))


@pytest.mark.usefixtures("own_folder")
def test_what_hangs_on_weights_is_left_to_the_steps() -> None:
    """Which layers an energy makes thin is not known, so neither are the names that come after it."""
    recipe = "model: py:own_teacher:teacher\ndata: data.npz\nsteps:\n"
    rehearse(
        parse_recipe(
            recipe
            + "  - {method: factorize, energy: 0.5}\n  - {method: lora, rank: 1, targets: ['0.down']}\n"
        )
    )
    with pytest.raises(StepError, match="'9' matches no linear layer"):
        rehearse(parse_recipe(recipe + "  - {method: factorize, energy: 0.5, targets: ['9']}\n"))
