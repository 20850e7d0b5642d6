import subprocess
import sys
from typing import Any

import pytest

from compress.errors import RecipeError
from compress.recipe import parse_recipe
from compress.step import validate

RECIPE = "model: zoo:lenet5\nsteps:\n  - method: prune\n    criterion: {}\n"


@pytest.mark.parametrize(
    ("settings", "variant"),
    [
        ({"criterion": "magnitude", "ratio": 0.9}, "magnitude-90"),
        ({"criterion": "magnitude", "ratio": 0.955}, "magnitude-95.5"),
        ({"criterion": "nm"}, "2of4"),
        ({"criterion": "wanda"}, "wanda-50"),
        ({"criterion": "sparsegpt", "pattern": {"n": 4, "m": 8}}, "sparsegpt-4of8"),
    ],
)
def test_a_variant_says_how_much_and_by_what(settings: dict[str, Any], variant: str) -> None:
    assert validate({"method": "prune", **settings}).variant == variant


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("magnitud", ":4: unknown criterion 'magnitud'; did you mean 'magnitude'?"),
        ("magnitude\n    ratio: 1", ":5: 'ratio': Input should be less than 1"),
        ("magnitude\n    ratio: 0", ":5: 'ratio': Input should be greater than 0"),
        ("magnitude\n    scop: layer", ":5: unknown key 'scop'; did you mean 'scope'?"),
        ("magnitude\n    gradual: {}", ":5: 'gradual': happens during fine-tuning; add 'finetune'"),
        ("magnitude\n    finetune: {steps: 9}\n    gradual: {events: 8}", "more events than steps"),
        ("nm\n    pattern: {n: 4, m: 4}", "'pattern.m': must be larger than n"),
        ("nm\n    ratio: 0.5", ":5: unknown key 'ratio'"),
        ("wanda\n    ratio: 0.5\n    pattern: {}", ":6: 'pattern': give either 'ratio' or 'pattern'"),
        ("sparsegpt\n    pattern: {m: 8}\n    block_size: 20", ":6: 'block_size': must be a multiple"),
        ("wanda\n    calibration: {samples: 0}", ":5: 'calibration.samples': Input should be greater"),
        ("wanda\n    targets: []", ":5: 'targets': Tuple should have at least 1 item"),
    ],
)
def test_a_mistake_is_named_with_its_line(lines: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE.format(lines), "r.yaml")
    assert message in str(caught.value)


def test_reading_the_settings_loads_no_torch() -> None:
    code = "import compress.prune.step, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
