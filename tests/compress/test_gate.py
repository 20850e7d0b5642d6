from typing import Any

import pytest

from compress.gate import judge
from compress.recipe import GateConfig
from runtime.manifest import Evidence, Interval, Latency, Quality


def evidence(drop: float = 0.0, high: float = 0.0, speedups: tuple[float, ...] = (1.0,)) -> Evidence:
    quality = Quality(
        metric="accuracy",
        higher_is_better=True,
        value=0.9 - drop,
        interval=Interval(low=0.8, high=0.95),
        baseline=0.9,
        drop=drop,
        drop_interval=Interval(low=drop, high=high),
        examples=100,
    )
    latency = tuple(
        Latency(
            workload=f"batch {index}",
            median_ms=1 / speedup,
            p90_ms=2.0,
            baseline_median_ms=1.0,
            speedup=speedup,
            speedup_interval=Interval(low=speedup, high=speedup),
            runs=15,
        )
        for index, speedup in enumerate(speedups)
    )
    return Evidence(size_bytes=1, baseline_size_bytes=4, quality=quality, latency=latency)


@pytest.mark.parametrize(
    ("given", "gate", "passes"),
    [
        ({"drop": 0.01}, {"max_drop": 0.01}, True),
        ({"drop": 0.011}, {"max_drop": 0.01}, False),
        ({"drop": -0.5}, {"max_drop": 0.0}, True),
        ({"drop": 0.5}, {"max_drop": None}, True),
        ({"speedups": (2.0, 1.5)}, {"min_speedup": 1.5}, True),
        ({"speedups": (2.0, 0.9)}, {"min_speedup": 1.0}, False),
        ({"speedups": ()}, {"min_speedup": 1.0}, True),
        ({"drop": float("nan")}, {"max_drop": 0.01}, False),
    ],
)
def test_the_verdict(given: dict[str, Any], gate: dict[str, Any], passes: bool) -> None:
    assert judge(evidence(**given), GateConfig(**gate)).passed is passes


def test_a_failure_says_what_was_measured_and_asked() -> None:
    verdict = judge(evidence(0.05, 0.06, (0.5,)), GateConfig(max_drop=0.01, min_speedup=1.0))
    assert verdict.failures == (
        "accuracy 0.85 against 0.9: worse by 5.00%, allowed 1.00%",
        "batch 0: 0.50x the baseline's speed, asked 1x",
    )


def test_a_drop_that_the_data_cannot_rule_out_is_noted() -> None:
    verdict = judge(evidence(drop=0.005, high=0.03), GateConfig(max_drop=0.01))
    assert verdict.passed
    assert "95% interval reaches 3.00% over 100 examples" in verdict.notes[0]


def test_unmeasured_quality_is_noted() -> None:
    blind = Evidence(size_bytes=1, baseline_size_bytes=1)
    assert "no labels to judge by" in judge(blind, GateConfig()).notes[0]
