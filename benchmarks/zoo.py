"""Train members of the zoo to their floors, compress each to int8, and write their rows of docs/zoo.md.

    python benchmarks/zoo.py                 # every member
    python benchmarks/zoo.py lenet5 resnet   # these; the other rows stay as they are
    python benchmarks/zoo.py --recipes       # the second table: every recipe that takes more than bits away
    python benchmarks/zoo.py --recipes masks-shrunk

What is trained and measured already is taken from the caches. Latency is that of this machine at batch 1, so
run it on a quiet one.
"""

import argparse
from pathlib import Path
from typing import Any

from compress.pipeline import Result, run
from compress.recipe import Recipe, load_recipe, parse_recipe
from models import registry
from models.zoo.member import Member
from runtime.manifest import Latency

ROOT = Path(__file__).resolve().parent.parent
PAGE, RECIPES = ROOT / "docs" / "zoo.md", ROOT / "recipes"
BEGIN, END = "<!-- benchmarks/zoo.py -->\n", "<!-- end -->"
BEGIN_RECIPES = "<!-- benchmarks/zoo.py --recipes -->\n"
COLUMNS = (
    *("member", "parameters", "data", "metric", "floor", "float32", "int8"),
    *("float32 KiB", "int8 KiB", "float32 ms", "int8 ms", "training s", "float32 also"),
)
RECIPE_COLUMNS = (
    *("recipe", "member", "family", "steps", "metric", "before", "after"),
    *("KiB before", "KiB after", "ms before", "ms after", "gate"),
)
# Convolutions want calibrated activations; everything else takes them as they come.
STATIC = {"convolutional", "segmentation", "detection", "generative", "multimodal"}
# What makes a network smaller than its weights' bits do.
BEYOND_QUANTIZATION = {"distill", "factorize", "prune", "shrink"}


def main(names: list[str], recipes: bool) -> None:
    """Measure the members (or recipes) that are named, or all, and write the page after each."""
    begin, columns = (BEGIN_RECIPES, RECIPE_COLUMNS) if recipes else (BEGIN, COLUMNS)
    for name in names or (_beyond_quantization() if recipes else registry.names()):
        line = _recipe_row(name) if recipes else _row(name)
        print(line)
        PAGE.write_text(with_row(PAGE.read_text("utf-8"), begin, columns, line), "utf-8")


def _beyond_quantization() -> list[str]:
    """The recipes for members of the zoo that do more than quantize."""
    return [path.stem for path in sorted(RECIPES.glob("*.yaml")) if _does_more(load_recipe(path))]


def _does_more(recipe: Recipe) -> bool:
    methods = {step.method for step in recipe.steps}
    return recipe.model.startswith("zoo:") and bool(methods & BEYOND_QUANTIZATION)


def _recipe_row(name: str) -> str:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    result = run(recipe)
    spec = registry.get(recipe.model.removeprefix("zoo:"))
    steps = " + ".join(step.variant for step in recipe.steps)
    verdict = "passed" if result.verdict.passed else "missed"
    cells = [f"`{name}`", f"`{spec.name}`", spec.family, steps, spec.metric, *_figures(result), verdict]
    return f"| {' | '.join(cells)} |"


def _row(name: str) -> str:
    spec = registry.get(name)
    scheme = "int8-static" if spec.family in STATIC else "int8-dynamic"
    result = run(parse_recipe(f"model: zoo:{name}\nsteps:\n  - {{method: quantize, scheme: {scheme}}}\n"))
    record = Member(spec).record()
    assert record is not None
    assert result.evidence.quality is not None
    cells = [
        f"`{name}`",
        f"{spec.parameters:,}",
        spec.dataset,
        spec.metric,
        # What a floor is that has a name (an n-gram model's) was found when the member was trained.
        f"{record['floor_value'] if isinstance(spec.floor, str) else spec.floor:.3g}",
        *_figures(result),
        f"{record['seconds'] + (record['pretraining'] or {}).get('seconds', 0):.0f}",
        ", ".join(f"{metric} {value:.4g}" for metric, value in record.get("also", {}).items()),
    ]
    return f"| {' | '.join(cells)} |"


def _figures(result: Result) -> list[str]:
    evidence: Any = result.evidence
    alone: Latency = evidence.latency[0]
    return [
        f"{evidence.quality.baseline:.4g}",
        f"{evidence.quality.value:.4g}",
        f"{evidence.baseline_size_bytes / 1024:,.0f}",
        f"{evidence.size_bytes / 1024:,.0f}",
        f"{alone.baseline_median_ms:.3g}",
        f"{alone.median_ms:.3g}",
    ]


def with_row(page: str, begin: str, columns: tuple[str, ...], line: str) -> str:
    """`page` with `line` in the table after `begin`, in alphabetical order, for an older row of its name.

    A page without the table gets it at its end.
    """
    before, _, rest = page.partition(begin)
    table, _, after = rest.partition(END)
    lines = [*(row for row in table.splitlines() if row.startswith("| `")), line]
    rows = {row.split("`")[1]: row for row in lines}
    header = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    listed = "\n".join([header, *(rows[each] for each in sorted(rows))])
    ending = after or "\n"
    return f"{before}{begin}{listed}\n{END}{ending}"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("names", nargs="*", metavar="NAME")
    arguments.add_argument(
        "--recipes", action="store_true", help="the recipes' table instead of the members'"
    )
    chosen = arguments.parse_args()
    main(chosen.names, chosen.recipes)
