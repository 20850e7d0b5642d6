"""The load tests of a deployment, as tables: the rate that each model reaches, and which one is better.

    modelpress serve lenet5-fp32 lenet5-int8-static gpt-mini-fp32 gpt-mini-int4 --port 3000 &
    python benchmarks/loadtests_report.py --url http://127.0.0.1:3000 --out out/loadtests \
        digits=lenet5-fp32,lenet5-int8-static complete=gpt-mini-fp32,gpt-mini-int4

Every argument is a scenario and the models to ask; the first of them is what the others are compared with.
For each model: the highest rate within the scenario's objectives, found by `search`. For each after the
first: ten interleaved pairs at half the first one's rate, by `compare`. All documents stay in `--out`.

Whether another load generator agrees, on the same deployment at the same concurrency; guidellm wants an
environment of its own, and a tokenizer, which the bundle has:

    python -m venv /tmp/guidellm && /tmp/guidellm/bin/pip install guidellm
    /tmp/guidellm/bin/guidellm benchmark --target http://127.0.0.1:3000 --model gpt-mini-int4 \
        --processor FOLDER_OF_THE_BUNDLE --request-type text_completions \
        --rate-type concurrent --rate 4 --data "prompt_tokens=32,output_tokens=48" --max-seconds 60
    modelpress loadtest sweep complete --url http://127.0.0.1:3000 --model gpt-mini-int4 \
        --users 4 --duration 60
"""

import argparse
import subprocess
import sys
from pathlib import Path

from loadtests.compare import Comparison
from loadtests.point import Series

FIRST_RATES = {"complete": 1.0, "chat": 0.2}


def loadtest(*arguments: str) -> None:
    """Run a command whose verdict may be anything, but which must have measured."""
    done = subprocess.run([sys.executable, "-m", "loadtests", *arguments], check=False)
    if done.returncode == 2:
        sys.exit(f"failed: loadtest {' '.join(arguments)}")


def search(scenario: str, model: str, url: str, out: Path) -> Series:
    """The highest rate of one model."""
    path = out / f"{scenario}-{model}.json"
    rate = str(FIRST_RATES.get(scenario, 20.0))
    pages = ["--out", str(path), "--html", str(path.with_suffix(".html"))]
    loadtest("search", scenario, "--url", url, "--model", model, "--rate", rate, *pages)
    return Series.model_validate_json(path.read_bytes())


def compare(scenario: str, models: tuple[str, str], rate: float, url: str, out: Path) -> Comparison:
    """The second model against the first."""
    path = out / f"{scenario}-{models[0]}-{models[1]}.json"
    pages = ["--out", str(path), "--html", str(path.with_suffix(".html"))]
    named = [part for model in models for part in ("--model", model)]
    loadtest("compare", scenario, "--url", url, *named, "--rate", f"{rate:.3g}", *pages)
    return Comparison.model_validate_json(path.read_bytes())


def row(scenario: str, model: str, found: Series) -> str:
    """One line of the first table: the best point that met every objective."""
    met = [point for point in found.points if point.load == found.highest_pass]
    latency = met[0].summary.latency_ms if met else None
    figures = [f"{latency.percentiles[name].value:.1f}" if latency else "" for name in ("p50", "p99")]
    highest = "none" if found.highest_pass is None else f"{found.highest_pass:.3g}"
    lowest = "none tried" if found.lowest_fail is None else f"{found.lowest_fail:.3g}"
    return f"| {scenario} | {model} | {highest} | {lowest} | {figures[0]} | {figures[1]} |"


def verdict(models: tuple[str, str], found: Comparison) -> str:
    """One line of the second table."""
    intervals = [f"{one.measure} {one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in found.ratios]
    return f"| {models[1]} against {models[0]} | {found.verdict} | {', '.join(intervals)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", type=Path, default=Path("out/loadtests"))
    parser.add_argument("tasks", nargs="+", metavar="SCENARIO=MODEL,MODEL")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rates, verdicts = [], []
    for task in arguments.tasks:
        scenario, _, names = task.partition("=")
        first, *others = names.split(",")
        found = search(scenario, first, arguments.url, arguments.out)
        rates.append(row(scenario, first, found))
        for other in others:
            rates.append(row(scenario, other, search(scenario, other, arguments.url, arguments.out)))
            half = (found.highest_pass or found.points[0].load) / 2
            compared = compare(scenario, (first, other), half, arguments.url, arguments.out)
            verdicts.append(verdict((first, other), compared))
    print("| scenario | model | highest rate/s | lowest that fails | p50 ms | p99 ms |\n|" + "---|" * 6)
    print("\n".join(rates))
    print("\n| | verdict | ratios |\n|---|---|---|")
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
