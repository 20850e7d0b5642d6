"""The load tests of a deployment, as tables: the rate that each model reaches, and which one is better.

    modelpress serve lenet5-fp32 lenet5-int8-static gpt-mini-fp32 gpt-mini-int4 --threads 1 --port 3000 &
    python benchmarks/loadtests_report.py --url http://127.0.0.1:3000 --out out/loadtests \
        digits=lenet5-fp32,lenet5-int8-static complete=gpt-mini-fp32,gpt-mini-int4

Every argument is a scenario and the models to ask; the first of them is what the others are compared with.
For each model: the highest rate within the scenario's objectives, found by `search`. For each after the
first: interleaved pairs at half the first one's rate, by `compare`. All documents stay in `--out`, and what
is there is not measured again: a long report may be made in several short runs, the last of which has all
the arguments.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from loadtests.compare import Comparison
from loadtests.point import Series
from loadtests.statistics import Distribution
from loadtests.terminal import figure

# Where the search begins, in requests a second, and the seconds of its runs, unless a rate needs more.
FIRST_RATES = {"complete": 32.0, "chat": 0.5}
SECONDS = {"complete": 8.0, "chat": 20.0}

# Of a comparison: at half the highest rate, runs of this many seconds have samples enough.
COMPARED_SECONDS = 5.0
PAIRS = {"complete": 6}

# A tenth apart is near enough to tell models apart, and half the rates to try of a twentieth.
PRECISION = 0.1


def loadtest(command: str, scenario: str, out: Path, *options: str) -> bytes:
    """What a command wrote, whatever its verdict; one that wrote nothing ends the report."""
    pages = ["--out", str(out), "--html", str(out.with_suffix(".html"))]
    if not out.exists():
        subprocess.run([sys.executable, "-m", "loadtests", command, scenario, *options, *pages], check=False)
    if not out.exists():
        sys.exit(f"nothing was measured: {command} {scenario} {' '.join(options)}")
    return out.read_bytes()


def search(scenario: str, model: str, url: str, out: Path) -> Series:
    """The highest rate of one model."""
    options = ["--rate", str(FIRST_RATES.get(scenario, 100.0)), "--precision", str(PRECISION)]
    options += ["--duration", str(SECONDS.get(scenario, 5.0))]
    path = out / f"{scenario}-{model}.json"
    return Series.model_validate_json(
        loadtest("search", scenario, path, "--url", url, "--model", model, *options)
    )


def compare(scenario: str, models: tuple[str, str], rate: float, url: str, out: Path) -> Comparison:
    """The second model against the first."""
    path = out / f"{scenario}-{models[0]}-{models[1]}.json"
    options = [part for model in models for part in ("--model", model)]
    options += ["--rate", f"{rate:.3g}", "--duration", str(COMPARED_SECONDS)]
    options += ["--pairs", str(PAIRS.get(scenario, 8))]
    return Comparison.model_validate_json(loadtest("compare", scenario, path, "--url", url, *options))


def row(scenario: str, model: str, found: Series) -> str:
    """One line of the first table: the best point that met every objective."""
    met = [point.summary for point in found.points if point.load == found.highest_pass]
    highest = "none" if found.highest_pass is None else f"{found.highest_pass:.4g}"
    lowest = "none tried" if found.lowest_fail is None else f"{found.lowest_fail:.4g}"
    figures = [
        *percentiles(met[0].latency_ms if met else None, "p50", "p90", "p99"),
        *percentiles(met[0].ttft_ms if met else None, "p50", "p90"),
    ]
    note = f" ({found.note})" if found.note else ""
    return f"| {scenario} | {model} | {highest} | {lowest}{note} | {' | '.join(figures)} |"


def percentiles(distribution: Distribution | None, *names: str) -> list[str]:
    """A cell for each, empty where there is nothing of the kind."""
    return [figure(distribution, name) if distribution else "" for name in names]


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
    headings = ["scenario", "model", "highest rate/s", "lowest that fails", "p50 ms", "p90", "p99"]
    headings += ["TTFT p50", "p90"]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    print("\n".join(rates))
    print("\n| | verdict | ratios |\n|---|---|---|")
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
