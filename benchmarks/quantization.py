"""What each setting of `quantize` costs and gains on gpt-mini, one changed at a time.

    python benchmarks/quantization.py

Every row is a whole recipe through the pipeline: the perplexity is of the graph that ships, the drop has its
paired 95% interval, the latency is interleaved with the float32 graph's.
"""

import json
import sys

from rich.console import Console
from rich.table import Table

from compress.machine import machine
from compress.pipeline import run
from compress.recipe import parse_recipe
from compress.table import cells

SETTINGS = (
    {"scheme": "fp16"},
    {"scheme": "int8-dynamic"},
    {"scheme": "int8-dynamic", "reduce_range": False},
    {"scheme": "int8-dynamic", "per_channel": False},
    {"scheme": "int4"},
    {"scheme": "int4", "accuracy_level": 0},
    {"scheme": "int4", "head_bits": 4},
    {"scheme": "int4", "group_size": 16},
    {"scheme": "int4", "group_size": 128},
    {"scheme": "int4", "algorithm": "hqq"},
    {"scheme": "int4", "algorithm": "gptq"},
    {"scheme": "int4", "algorithm": "awq"},
    {"scheme": "int8-weight-only"},
    {"scheme": "int8-dynamic", "smooth": {}},
    {"scheme": "mixed", "budget": {"bits": 5}},
    {"scheme": "mixed", "budget": {"max_drop": 0.005}},
)

# Every row is shown, whatever it costs; 256 windows give intervals of about a tenth of a percent.
GATE = {"max_drop": None, "examples": 256}


def main(model: str) -> None:
    """Print one row for each setting."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("setting", "MB", "smaller", "quality", "worse by % [95%]", "decode 1, ms", "faster"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    for settings in SETTINGS:
        recipe = {"model": model, "steps": [{"method": "quantize", **settings}], "gate": GATE}
        result = run(parse_recipe(json.dumps(recipe)))
        name = " ".join(
            str(value) if key == "scheme" else f"{key}={_plain(value)}" for key, value in settings.items()
        )
        table.add_row(name, *cells(result.evidence))
    console = Console(width=140)
    console.print(machine())
    console.print(table)


def _plain(value: object) -> object:
    """Settings within settings, as `max_drop 0.005`; `on` where they are all at their defaults."""
    if not isinstance(value, dict):
        return value
    return " ".join(f"{key} {each}" for key, each in value.items()) or "on"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "zoo:gpt-mini")
