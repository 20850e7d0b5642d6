"""The bars that the compression methods are held to, each on a demo task, over three seeds.

    python benchmarks/compression.py                 # every bar: hours on two cores
    python benchmarks/compression.py --only flops    # one of them; --seed 1 for one of its seeds
    python benchmarks/compression.py --write         # only the table of the rows that are kept
    python benchmarks/compression.py --quick         # one seed, short trainings: whether it runs, no verdict

Every figure comes from a whole recipe through the pipeline, so it is of the graph that ships. Each seed's row
is kept in `benchmarks/results/compression/` as soon as it is known, and stages are cached: an interrupted run
goes on. A bar that is missed is shown as missed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "compression", ROOT / "docs" / "compression.md"
BEGIN, END = "<!-- by `python benchmarks/compression.py --write` -->", "<!-- end -->"
HEADINGS = ("bar", "asks", "figure", "mean", "spread", "seeds", "holds")


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison at one seed: a figure, whether it is on the right side of the bar, and what it is of."""

    figure: float
    holds: bool
    of: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bar:
    """What is asked, in words, and how one seed is judged."""

    name: str
    asks: str
    figure: str
    judge: Callable[[int, bool], Row]


def main(only: str | None, seeds: Sequence[int], quick: bool) -> None:
    """Print one row for each bar."""
    bars = [bar for bar in BARS if only in (None, bar.name)]
    if not bars:
        raise SystemExit(f"no bar '{only}'; there is {', '.join(bar.name for bar in BARS)}")
    _show({bar.name: [_judged(bar, seed, quick) for seed in seeds] for bar in bars})


def write_page() -> None:
    """The table of every row that is kept, in its place in `PAGE`."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{markdown(_kept_rows())}\n\n{END}{after}")


def markdown(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A table of the bars in `rows`, then what their figures are made of."""
    named = {bar.name: bar for bar in BARS}
    lines = [HEADINGS, ["---"] * len(HEADINGS)]
    lines += [[name, named[name].asks, named[name].figure, *_cells(seeds)] for name, seeds in rows.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n".join(f"- `{name}`: {_parts(seeds)}." for name, seeds in rows.items())


def _parts(seeds: Sequence[Mapping[str, Any]]) -> str:
    """Seed by seed, what the figure is made of."""
    return "; ".join(", ".join(f"{key} {value:.4g}" for key, value in row["of"].items()) for row in seeds)


def _judged(bar: Bar, seed: int, quick: bool) -> dict[str, Any]:
    """One seed's row, kept unless it is a quick one."""
    began = time.monotonic()
    row = bar.judge(seed, quick)
    found = {"seed": seed, "figure": row.figure, "holds": row.holds, "of": dict(row.of), "machine": machine()}
    found["seconds"] = round(time.monotonic() - began, 1)
    if not quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{bar.name}-{seed}.json").write_text(json.dumps(found, indent=2) + "\n")
    return found


def _kept_rows() -> dict[str, list[dict[str, Any]]]:
    found = {bar.name: sorted(RESULTS.glob(f"{bar.name}-[0-9].json")) for bar in BARS}
    return {name: [json.loads(path.read_text()) for path in paths] for name, paths in found.items() if paths}


def _show(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading)
    for bar in BARS:
        if bar.name in rows:
            table.add_row(bar.name, bar.asks, bar.figure, *_cells(rows[bar.name]))
    console = Console(width=140)
    console.print(machine())
    console.print(table)
    for name, seeds in rows.items():
        console.print(f"{name}: {_parts(seeds)}")


def _cells(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    figures = [row["figure"] for row in rows]
    held = sum(row["holds"] for row in rows)
    spread = f"{min(figures):.4g} to {max(figures):.4g}"
    verdict = "yes" if held == len(rows) else f"no ({held} of {len(rows)})"
    return f"{statistics.mean(figures):.4g}", spread, str(len(rows)), verdict


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
    """What the last step of this method found."""
    steps = result.bundle.manifest.lineage.steps
    return dict(next(step.figures for step in reversed(steps) if step.method == method))


def _kept(result: Result, before: float | None = None) -> float:
    """The share of the metric that is left: of the baseline's, or of what it was `before` some step."""
    quality = _quality(result)
    ratio = quality.value / (quality.baseline if before is None else before)
    return float(ratio if quality.higher_is_better else 1 / ratio)


def _metrics(result: Result) -> dict[str, float]:
    quality = _quality(result)
    return {"from": quality.baseline, "to": quality.value}


def _within(drop: float) -> Callable[[Result], Row]:
    """By how many points the metric fell, which may be at most `drop` points."""
    return lambda result: Row(
        100 * _quality(result).drop, _quality(result).drop <= drop / 100, _metrics(result)
    )


def _half_the_work(result: Result) -> Row:
    kept = _figures(result, "shrink")["flops_kept"]
    row = _within(1.0)(result)
    return Row(row.figure, row.holds and kept <= 0.5, {**row.of, "FLOPs kept": kept})


def _of(model: str, judge: Callable[[Result], Row], *steps: Step) -> Callable[[int, bool], Row]:
    return lambda seed, quick: judge(_run(model, seed, quick, *steps))


def _distilled(result: Result) -> Row:
    """The share of the teacher's metric that the student keeps."""
    found = _figures(result, "distill")
    kept = _kept(result, before=found["teacher"])
    of = {"teacher": found["teacher"], "student": found["student"], "alone": found["alone"]}
    lower = not _quality(result).higher_is_better
    better = found["student"] < found["alone"] if lower else found["student"] > found["alone"]
    return Row(kept, kept >= 0.97 and better, of)


def _gptq_against_rounding(seed: int, quick: bool) -> Row:
    """How much lower GPTQ's perplexity is than rounding to nearest, in percent."""
    rtn, gptq = (
        _quality(_run("zoo:gpt-mini", seed, quick, {**INT4, "algorithm": way})) for way in ("rtn", "gptq")
    )
    holds = gptq.value <= rtn.value and gptq.drop <= 0.015
    of = {"float32": gptq.baseline, "rounded": rtn.value, "GPTQ": gptq.value}
    return Row(100 * (1 - gptq.value / rtn.value), holds, of)


def _qlora_against_lora(seed: int, quick: bool) -> Row:
    """How much higher the perplexity of adapters over NF4 is than over float32, in percent."""
    lora, qlora = (
        _figures(_run("zoo:gpt-mini", seed, quick, {**LORA, **base}), "lora")
        for base in ({}, {"quantized_base": {"scheme": "nf4"}})
    )
    full, quantized = lora["adapted"], qlora["adapted"]
    of = {"before": lora["before"], "LoRA": full, "NF4": qlora["quantized"], "QLoRA": quantized}
    return Row(100 * (quantized / full - 1), quantized <= 1.01 * full, of)


def _small_encoder(result: Result) -> Row:
    """How many times smaller; beside it, how much faster at the slowest workload, and the metric."""
    evidence = result.evidence
    smaller = evidence.baseline_size_bytes / evidence.size_bytes
    faster = min(latency.speedup for latency in evidence.latency)
    holds = smaller >= 10 and faster >= 4 and _kept(result) >= 0.97
    return Row(smaller, holds, {"faster": faster, "kept": _kept(result), **_metrics(result)})


def _cut_out(result: Result) -> Row:
    """How much faster at the slowest workload; beside it, the shares of parameters and bytes that stay."""
    found, evidence = _figures(result, "shrink"), result.evidence
    faster = min(latency.speedup for latency in evidence.latency)
    parameters = found["parameters_after"] / found["parameters_before"]
    size, apart = evidence.size_bytes / evidence.baseline_size_bytes, found["masked_difference"]
    holds = apart <= 1e-5 and max(parameters, size) < 1 < faster
    return Row(faster, holds, {"difference": apart, "parameters kept": parameters, "bytes kept": size})


def _shrinking(model: str, **remove: float) -> Bar:
    """The untuned cut of one architecture: what it computes, and what it costs."""
    what = " and ".join(f"{ratio:.0%} of its {kind}" for kind, ratio in remove.items())
    return Bar(
        f"shrink-{model}",
        f"{model} without {what}: the masked model to 1e-5; fewer parameters, smaller, faster",
        "times faster",
        _of(f"zoo:{model}", _cut_out, {"method": "shrink", "remove": remove}),
    )


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
        "gpt-mini of 4 layers, 2 of them: >= 97% of the metric, and better than alone",
        "share kept",
        _of(
            "zoo:gpt-mini",
            _distilled,
            {
                # The zoo's has 3 layers, which have no half: it teaches a fourth first.
                "method": "distill",
                "student": {"config": {"num_hidden_layers": 4}},
                "temperature": 1.0,
                "training": {"steps": 500, "batch_size": 4, "learning_rate": 0.003},
            },
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
        "flops",
        "lenet5, half of its FLOPs removed as channels: within 1 point",
        "points lost",
        _of(
            "zoo:lenet5",
            _half_the_work,
            {"method": "shrink", "remove": {"flops": 0.5}, "finetune": {**TRAINING, "distill": SOFT}},
        ),
    ),
    _shrinking("resnet", channels=0.5),
    _shrinking("mobilenet-v2", channels=0.5),
    _shrinking("bert", heads=0.5, ffn=0.5),
    _shrinking("gpt-mini", heads=0.5, ffn=0.5),
    Bar(
        "sparse",
        "lenet5, 90% zeros in rounds: within 2 points",
        "points lost",
        _of(
            "zoo:lenet5",
            _within(2.0),
            {"method": "prune", "criterion": "iterative", "ratio": 0.9, "finetune": TRAINING},
        ),
    ),
    Bar(
        "int8-static",
        "lenet5: within 0.5 point",
        "points lost",
        _of("zoo:lenet5", _within(0.5), {"method": "quantize", "scheme": "int8-static"}),
    ),
    Bar(
        "qat",
        "lenet5: within 0.2 point",
        "points lost",
        _of("zoo:lenet5", _within(0.2), {"method": "qat", "finetune": {"distill": SOFT}}),
    ),
    Bar(
        "gptq",
        "gpt-mini, int4: at or below rounding, within 1.5% of float32",
        "% below rounding",
        _gptq_against_rounding,
    ),
    Bar("qlora", "gpt-mini: NF4 QLoRA within 1% of LoRA", "% above LoRA", _qlora_against_lora),
    Bar(
        "encoder",
        "bert, distill + prune + int8: >= 10x smaller, >= 4x faster, >= 97% of the metric",
        "times smaller",
        _of(
            "zoo:bert",
            _small_encoder,
            {
                # Two fifths of the encoder are its word vectors, and only a narrower student has fewer.
                "method": "distill",
                "student": {"config": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1}},
                "alpha": 0.3,
                "cached": {"top_k": 10},
                "training": {"steps": 1500, "batch_size": 16, "learning_rate": 0.003},
            },
            {
                "method": "shrink",
                "remove": {"ffn": 0.5},
                "importance": "taylor",
                "finetune": {"steps": 300, "batch_size": 16, "learning_rate": 0.0005, "distill": SOFT},
            },
            {"method": "quantize", "scheme": "int8-dynamic"},
        ),
    ),
)

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", metavar="NAME")
    arguments.add_argument("--seed", type=int, choices=SEEDS)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--write", action="store_true")
    chosen = arguments.parse_args()
    if chosen.write:
        write_page()
    else:
        every = QUICK_SEEDS if chosen.quick else SEEDS
        main(chosen.only, every if chosen.seed is None else (chosen.seed,), chosen.quick)
