"""The bars that the compression methods are held to, each on a demo task, over three seeds.

    python benchmarks/compression.py                 # every bar: hours on two cores
    python benchmarks/compression.py --only shrink   # one of them
    python benchmarks/compression.py --quick         # one seed, short trainings: whether it runs, no verdict

Every figure comes from a whole recipe through the pipeline, so it is of the graph that ships; stages are
cached, and an interrupted run goes on. A bar that is missed is shown as missed.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from compress.machine import machine
from compress.pipeline import Result, run
from compress.recipe import parse_recipe

Step = dict[str, Any]
SEEDS, QUICK_SEEDS = (0, 1, 2), (0,)
QUICK_STEPS = 20
# Every row is shown, whatever it costs: the bars judge here, not the gate.
GATE = {"max_drop": None}


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison at one seed: a figure, and whether it is on the right side of the bar."""

    figure: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """What is asked, in words, and how one seed is judged."""

    name: str
    asks: str
    judge: Callable[[int, bool], Row]


def main(only: str | None, quick: bool) -> None:
    """Print one row for each bar."""
    bars = [bar for bar in BARS if only in (None, bar.name)]
    if not bars:
        raise SystemExit(f"no bar '{only}'; there is {', '.join(bar.name for bar in BARS)}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("bar", "asks", "mean", "spread", "seeds", "holds"):
        table.add_column(heading)
    for bar in bars:
        table.add_row(bar.name, bar.asks, *_cells([bar.judge(seed, quick) for seed in _seeds(quick)]))
    console = Console(width=140)
    console.print(machine())
    console.print(table)


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    figures = [row.figure for row in rows]
    held = sum(row.holds for row in rows)
    spread = f"{min(figures):.4g} to {max(figures):.4g}"
    verdict = "yes" if held == len(rows) else f"no ({held} of {len(rows)})"
    return f"{statistics.mean(figures):.4g}", spread, str(len(rows)), verdict


def _seeds(quick: bool) -> Sequence[int]:
    return QUICK_SEEDS if quick else SEEDS


def _run(model: str, seed: int, quick: bool, *steps: Step) -> Result:
    shortened = [_shortened(step) for step in steps] if quick else list(steps)
    return run(parse_recipe(json.dumps({"model": model, "seed": seed, "steps": shortened, "gate": GATE})))


def _shortened(step: Any) -> Any:
    """The same settings with every training cut short, wherever it stands."""
    if not isinstance(step, dict):
        return step
    return {key: QUICK_STEPS if key == "steps" else _shortened(value) for key, value in step.items()}


def _quality(result: Result) -> Any:
    assert result.evidence.quality is not None
    return result.evidence.quality


def _figures(result: Result, method: str) -> dict[str, Any]:
    steps = result.bundle.manifest.lineage.steps
    return dict(next(step.figures for step in steps if step.method == method))


def _kept(result: Result) -> float:
    """The share of the baseline's metric that is left."""
    quality = _quality(result)
    ratio = quality.value / quality.baseline
    return float(ratio if quality.higher_is_better else 1 / ratio)


def _within(drop: float) -> Callable[[Result], Row]:
    return lambda result: Row(_quality(result).drop, _quality(result).drop <= drop)


def _of(model: str, judge: Callable[[Result], Row], *steps: Step) -> Callable[[int, bool], Row]:
    return lambda seed, quick: judge(_run(model, seed, quick, *steps))


def _distilled(result: Result) -> Row:
    found, kept = _figures(result, "distill"), _kept(result)
    better = found["student"] < found["alone"]
    return Row(kept, kept >= 0.97 and better)


def _gptq_against_rounding(seed: int, quick: bool) -> Row:
    """How much lower GPTQ's perplexity is than rounding to nearest, in percent."""
    rtn, gptq = (
        _quality(
            _run("zoo:gpt-mini", seed, quick, {"method": "quantize", "scheme": "int4", "algorithm": way})
        )
        for way in ("rtn", "gptq")
    )
    return Row(100 * (1 - gptq.value / rtn.value), gptq.value <= rtn.value and gptq.drop <= 0.015)


def _qlora_against_lora(seed: int, quick: bool) -> Row:
    """How much higher the perplexity of adapters over NF4 is than over float32, in percent."""
    lora, qlora = (
        _figures(_run("zoo:gpt-mini", seed, quick, {**LORA, **base}), "lora")["adapted"]
        for base in ({}, {"quantized_base": {"scheme": "nf4"}})
    )
    return Row(100 * (qlora / lora - 1), qlora <= 1.01 * lora)


def _small_encoder(result: Result) -> Row:
    """How many times smaller, faster at the slowest workload, and the share of the metric that is kept."""
    evidence = result.evidence
    smaller = evidence.baseline_size_bytes / evidence.size_bytes
    faster = min(latency.speedup for latency in evidence.latency)
    return Row(smaller, smaller >= 10 and faster >= 4 and _kept(result) >= 0.97)


TRAINING = {"steps": 600, "batch_size": 64, "learning_rate": 0.003}
SOFT = {"temperature": 2.0, "alpha": 0.5}
INT4: Step = {"method": "quantize", "scheme": "int4"}
LORA: Step = {
    "method": "lora",
    "rank": 8,
    "training": {"steps": 200, "batch_size": 4, "learning_rate": 0.002},
}
BARS = (
    Bar(
        "distill",
        "gpt-mini, half of its layers: >= 97% of the metric, and better than alone",
        _of(
            "zoo:gpt-mini",
            _distilled,
            {
                "method": "distill",
                "student": {"layers": "every-other"},
                "temperature": 1.0,
                "compare_alone": True,
                "training": {"steps": 400, "batch_size": 4, "learning_rate": 0.001},
            },
        ),
    ),
    Bar(
        "shrink",
        "lenet5, half of its channels, so about a quarter of its FLOPs: within 1 point",
        _of(
            "zoo:lenet5",
            _within(0.01),
            {"method": "shrink", "remove": {"channels": 0.5}, "finetune": {**TRAINING, "distill": SOFT}},
        ),
    ),
    Bar(
        "sparse",
        "lenet5, 90% zeros in rounds: within 2 points",
        _of(
            "zoo:lenet5",
            _within(0.02),
            {"method": "prune", "criterion": "iterative", "ratio": 0.9, "finetune": TRAINING},
        ),
    ),
    Bar(
        "int8-static",
        "lenet5: within 0.5 point",
        _of("zoo:lenet5", _within(0.005), {"method": "quantize", "scheme": "int8-static"}),
    ),
    Bar("qat", "lenet5: within 0.2 point", _of("zoo:lenet5", _within(0.002), {"method": "qat"})),
    Bar("gptq", "gpt-mini, int4: at or below rounding, within 1.5% of float32", _gptq_against_rounding),
    Bar("qlora", "gpt-mini: NF4 QLoRA within 1% of LoRA", _qlora_against_lora),
    Bar(
        "encoder",
        "bert, distill + prune + int8: >= 10x smaller, >= 4x faster, >= 97% of the metric",
        _of(
            "zoo:bert",
            _small_encoder,
            {
                "method": "distill",
                "student": {"layers": "every-other"},
                "training": {"steps": 600, "batch_size": 16, "learning_rate": 0.0005},
            },
            {
                "method": "shrink",
                "remove": {"ffn": 0.5, "heads": 0.5},
                "importance": "taylor",
                "finetune": {"steps": 600, "batch_size": 16, "learning_rate": 0.0005, "distill": SOFT},
            },
            {"method": "quantize", "scheme": "int8-dynamic"},
        ),
    ),
)

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", metavar="NAME")
    arguments.add_argument("--quick", action="store_true")
    chosen = arguments.parse_args()
    main(chosen.only, chosen.quick)
