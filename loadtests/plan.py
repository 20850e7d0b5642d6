"""The plan of a run: every request of it, with its planned time, drawn from the seed before anything is sent.

The same scenario and seed give the same plan. Times, choices from the mix and choices of a body come from
three independent streams of the seed, so that changing the mix leaves the times as they were.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from yarl import URL

from loadtests import arrivals, dialects
from loadtests.dialects.exchange import Call
from loadtests.errors import InvalidOption, InvalidScenario
from loadtests.scenario import ConstantArrivals, Scenario

# Every sample stays in memory until the result is written, at about 1 kB with its place in the plan: 2 GB.
MAX_REQUESTS = 2_000_000

# Holds the bearer token; addresses and scenarios are written into results, the environment is not.
API_KEY_VARIABLE = "MODELPRESS_API_KEY"


class Arrival(NamedTuple):
    """One planned request: `offset` seconds after the start, the `request`-th entry of the mix."""

    offset: float
    request: int
    url: URL
    call: Call


def draw(scenario: Scenario, base_url: str) -> list[Arrival]:
    """The whole run in the order of sending. Raises InvalidScenario when it is empty or does not fit."""
    base = parse_url(base_url)
    times, requests, bodies = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(scenario.seed).spawn(3)
    )
    offsets = _offsets(scenario, times)
    weights = np.array([request.weight for request in scenario.mix])
    choices = requests.choice(len(weights), size=len(offsets), p=weights / weights.sum())
    picks = bodies.random(len(offsets))
    targets = [
        [(base.joinpath(call.path.lstrip("/"), encoded=True), call) for call in dialects.calls(request)]
        for request in scenario.mix
    ]
    return [
        Arrival(offset, choice, *targets[choice][int(pick * len(targets[choice]))])
        for offset, choice, pick in zip(offsets.tolist(), choices.tolist(), picks.tolist(), strict=True)
    ]


def parse_url(text: str) -> URL:
    """The server's address, which may have a path of its own. Raises InvalidOption."""
    try:
        url = URL(text)
    except ValueError as error:
        raise InvalidOption(f"--url {text}: {error}") from error
    if url.user or url.password:
        raise InvalidOption(f"--url: the address goes into the result; put a secret into {API_KEY_VARIABLE}")
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidOption(f"--url {text}: an address looks like http://127.0.0.1:3000")
    return url


def _offsets(scenario: Scenario, generator: np.random.Generator) -> NDArray[np.float64]:
    span, rate = scenario.warmup + scenario.duration, scenario.arrivals.rate
    if span * rate > MAX_REQUESTS:
        raise InvalidScenario(
            f"{span:g} s at {rate:g}/s is more than {MAX_REQUESTS:,} requests: shorten the run"
        )
    if isinstance(scenario.arrivals, ConstantArrivals):
        offsets = arrivals.constant(rate, span)
    else:
        offsets = arrivals.poisson(rate, span, generator)
    if not (offsets >= scenario.warmup).any():
        raise InvalidScenario(
            f"no request falls into {scenario.duration:g} s at {rate:g}/s: lengthen the run"
        )
    return offsets
