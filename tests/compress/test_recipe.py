import pytest

from compress.errors import RecipeError, StepError
from compress.recipe import check_task, load_recipe, parse_recipe
from runtime.manifest import Task

GOOD = """\
model: zoo:lenet5
steps:
  - method: quantize
    scheme: int8-static
    calibration:
      samples: 10
gate:
  max_drop: 0.02
"""

TAUGHT = """\
model: zoo:yolo
steps:
  - {method: prune, criterion: magnitude, finetune: {steps: 1, distill: {temperature: 2.0}}}
"""
STUDENT = "model: zoo:yolo\nsteps:\n  - {method: distill, student: {config: {width: 4}}}\n"


def test_a_recipe_is_read_whole() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.variant_name == "int8-static"
    assert recipe.steps[0].model_dump()["calibration"]["samples"] == 10
    assert recipe.gate.max_drop == 0.02


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("model:", "modle:"), "r.yaml:1: unknown key 'modle'; did you mean 'model'?"),
        (("quantize", "quantise"), "r.yaml:3: unknown method 'quantise'; did you mean 'quantize'?"),
        (("int8-static", "int8-sttic"), "r.yaml:4: unknown scheme 'int8-sttic'; did you mean 'int8-static'?"),
        (("samples:", "sampels:"), "r.yaml:6: unknown key 'calibration.sampels'; did you mean 'samples'?"),
        (("max_drop:", "max_drp:"), "r.yaml:8: unknown key 'gate.max_drp'; did you mean 'max_drop'?"),
        (
            ("samples: 10", "samples: none"),
            "r.yaml:6: 'calibration.samples': Input should be a valid integer",
        ),
        (("samples: 10", "samples: 0"), "r.yaml:6: 'calibration.samples': Input should be greater"),
        (("max_drop: 0.02", "max_drop: -1"), "r.yaml:8: 'gate.max_drop': Input should be greater"),
        (("    scheme: int8-static\n", ""), "r.yaml:3: the key 'scheme' is missing"),
        (("zoo:lenet5", "lenet5"), "r.yaml:1: 'model': String should match pattern"),
        (("method: quantize\n    ", ""), "r.yaml:3: step 1 has no 'method'"),
        ((GOOD, "steps: []"), "the key 'model' is missing"),
        ((GOOD, "- a\n- b"), "a recipe is a mapping"),
        ((GOOD, "model: [unclosed"), "not valid YAML"),
        ((GOOD, "model: zoo:x\nsteps: 3"), "r.yaml:2: 'steps' is a list"),
        (("scheme:", "scheme: fp16\n    scheme:"), "r.yaml:5: the key 'scheme' stands in line 4 already"),
        (("gate:", "steps: []\ngate:"), "r.yaml:7: the key 'steps' stands in line 2 already"),
        ((GOOD, "model: zoo:x\nsteps: {}"), "r.yaml:2: 'steps' is a list"),
        (("quantize", "[quantize]"), "r.yaml:3: unknown method '['quantize']'"),
        (("int8-static", "[int8-static]"), "r.yaml:4: unknown scheme '['int8-static']'"),
        ((GOOD, "[" * 3000), "nested too deeply"),
        ((GOOD, "model: zoo:x\nsteps: &a [*a]"), "nested too deeply"),
        ((GOOD, "model: zoo:x\nseed: 9" + "9" * 20), "r.yaml:2: 'seed': Input should be less than"),
        ((GOOD, "model: a\0"), "not valid YAML: unacceptable character"),
        (
            (GOOD, TAUGHT.replace("steps: 1", "label_smoothing: 0.1")),
            "r.yaml:3: 'finetune.distill': a teacher's",
        ),
        (
            (GOOD, STUDENT.replace("}}}", "}}, training: {label_smoothing: 0.1}}")),
            "r.yaml:3: 'training': a teacher's soft targets take the place of smoothed ones",
        ),
        ((GOOD, "model: onnx:x\nfull: true"), "r.yaml:2: 'full': trains members of the zoo only"),
        (
            ("scheme: int8-static", "scheme: int8-dynamic"),
            "r.yaml:5: unknown key 'calibration' here: it belongs to another setting; leave it out",
        ),
        ((GOOD, "model: zoo:x\nname: x-"), "r.yaml:2: 'name': String should match pattern"),
        (
            (GOOD, TAUGHT.replace("steps: 1", "threads: 100000000")),
            "r.yaml:3: 'finetune.threads': Input should be less than or equal to 1024",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key_file_and_line(edit: tuple[str, str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(GOOD.replace(*edit), "r.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")


def test_a_scheme_that_the_task_cannot_take_is_refused_before_any_work() -> None:
    with pytest.raises(StepError, match="int8-static does not take a decoder"):
        check_task(parse_recipe(GOOD), "text-generation")


@pytest.mark.parametrize("task", ["object-detection", "question-answering", "image-reconstruction"])
@pytest.mark.parametrize(
    ("recipe", "message"), [(TAUGHT, "prune: soft targets are of classes"), (STUDENT, "choice among classes")]
)
def test_what_has_no_classes_has_no_soft_targets(recipe: str, message: str, task: Task) -> None:
    check_task(parse_recipe(recipe), "image-classification")
    with pytest.raises(StepError, match=message):
        check_task(parse_recipe(recipe), task)


def test_every_recipe_of_the_project_is_valid_and_opens_with_its_command() -> None:
    from tests.paths import RECIPES

    assert RECIPES
    for path in RECIPES:
        load_recipe(path)
        assert path.read_text().startswith(f"# modelpress compress recipes/{path.name}\n")


def test_families_have_a_recipe_that_makes_a_member_smaller_than_its_bits_do() -> None:
    from models import registry
    from tests.paths import RECIPES

    recipes = [load_recipe(path) for path in RECIPES]
    smaller = [each for each in recipes if {"distill", "shrink"} & {step.method for step in each.steps}]
    families = {registry.get(each.model.removeprefix("zoo:")).family for each in smaller}
    asked = "convolutional encoder decoder detection segmentation generative graph"
    assert families >= set(asked.split())
