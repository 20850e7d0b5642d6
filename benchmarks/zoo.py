"""Train members of the zoo to their floors, compress each to int8, and write their rows of docs/zoo.md.

    python benchmarks/zoo.py                 # every member
    python benchmarks/zoo.py lenet5 resnet   # these; the other rows stay as they are

What is trained and measured already is taken from the caches. Latency is that of this machine at batch 1, so
run it on a quiet one.
"""

import sys
from pathlib import Path
from typing import Any

from compress.pipeline import Result, run
from compress.recipe import parse_recipe
from models import registry
from models.zoo.member import Member
from runtime.manifest import Latency

PAGE = Path(__file__).resolve().parent.parent / "docs" / "zoo.md"
BEGIN, END = "<!-- benchmarks/zoo.py -->\n", "<!-- end -->"
COLUMNS = (
    *("member", "parameters", "data", "metric", "floor", "float32", "int8"),
    *("float32 KiB", "int8 KiB", "float32 ms", "int8 ms", "training s", "float32 also"),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
# Convolutions want calibrated activations; everything else takes them as they come.
STATIC = {"convolutional", "segmentation", "detection", "generative", "multimodal"}


def main() -> None:
    """Measure the members that are named, or all, and write the page after each."""
    for name in sys.argv[1:] or registry.names():
        line = _row(name)
        print(line)
        _write(name, line)


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
        f"{record['floor_value']:.3g}",
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


def _write(name: str, line: str) -> None:
    """Put the row into the page's table, in alphabetical order."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {row.split("`")[1]: row for row in table.splitlines() if row.startswith("| `")} | {name: line}
    listed = "\n".join(rows[each] for each in sorted(rows))
    PAGE.write_text(f"{before}{BEGIN}{HEADER}{listed}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
