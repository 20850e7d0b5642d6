"""What a scenario may say about when requests go out. The drawing itself is in `arrivals.py`.

Open loop: the times are drawn beforehand. Closed loop: a number of users each of whom waits for an answer
before asking again, which is what a batch job does and what hides a server's stalls; its latencies count from
the moment its user was ready to ask. MLPerf's four scenarios go by their names.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loadtests import arrivals, trace
from loadtests.arrivals import Stage
from loadtests.config import Config, complaint
from loadtests.files import beside, is_recorded
from loadtests.spread import Spread

# A scenario of MLPerf LoadGen asks this many samples at once in MultiStream (`mlperf.conf`).
SAMPLES_PER_QUERY = 8

# A process of independent gaps sends (cv² - 1) / 2 requests more than its rate says, however long the run (D.
# R. Cox, Renewal Theory, 1962, chapter 4): 200 here. Some times burstier, a run is a million at once.
MOST_VARIATION = 20.0

# Seconds below which a remainder is rounding.
TINY = 1e-9


class PoissonArrivals(Config):
    """Independent arrivals, as from many users who know nothing of each other; on average `rate` a second."""

    kind: Literal["poisson", "server"]
    rate: PositiveFloat


class ConstantArrivals(Config):
    """Evenly spaced arrivals: exactly `rate` per second, the kindest load there is."""

    kind: Literal["constant"]
    rate: PositiveFloat


class GammaArrivals(Config):
    """Burstier than Poisson where the gaps' coefficient of variation `cv` is above 1, evener below."""

    kind: Literal["gamma"]
    rate: PositiveFloat
    cv: float = Field(gt=0, le=MOST_VARIATION)


class OnOffArrivals(Config):
    """`on_for` seconds at `rate`, then `off_for` seconds at `off_rate`, again and again."""

    kind: Literal["on-off"]
    rate: PositiveFloat
    on_for: PositiveFloat
    off_for: PositiveFloat
    off_rate: NonNegativeFloat = 0.0
    cv: float = Field(default=1.0, ge=0, le=MOST_VARIATION)


class StageConfig(Config):
    """`duration` seconds at `rate`, or on the way from there `to` another."""

    duration: PositiveFloat
    rate: NonNegativeFloat
    to: NonNegativeFloat | None = None


class StagedArrivals(Config):
    """Stages and ramps. `duration` of the scenario is theirs, unless it says otherwise."""

    kind: Literal["stages"]
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    cv: float = Field(default=1.0, ge=0, le=MOST_VARIATION)

    @model_validator(mode="after")
    def _sends(self) -> Self:
        if not any(stage.rate or stage.to for stage in self.stages):
            raise complaint("every stage has the rate 0", at=("stages",))
        return self

    @property
    def length(self) -> float:
        return sum(stage.duration for stage in self.stages)


class TraceArrivals(Config):
    """Replays a file of recorded requests, `speed` times as fast."""

    kind: Literal["trace"]
    file: Path
    unit: Literal["s", "ms"] = "s"
    speed: PositiveFloat = 1.0

    @field_validator("file")
    @classmethod
    def _replayable(cls, path: Path, info: ValidationInfo) -> Path:
        found = beside(path, info)
        if not is_recorded(info):
            trace.read(found)
        return found

    @property
    def lines(self) -> list[trace.Line]:
        return trace.read(self.file)

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """In seconds. Kept, unlike the lines, which a long trace has too many of."""
        scale = (0.001 if self.unit == "ms" else 1.0) / self.speed
        return np.array([line.time for line in self.lines]) * scale

    @property
    def length(self) -> float:
        """Its last request is within it."""
        return float(np.nextafter(self.times[-1], np.inf)) or 1e-3


class ClosedArrivals(Config):
    """`users` each ask, wait for the answer, `think`, and ask again: up to `requests`, where given."""

    kind: Literal["closed"]
    users: PositiveInt
    think: NonNegativeFloat | Spread = 0.0
    requests: PositiveInt | None = None


class SingleStream(Config):
    """MLPerf: one request at a time; the figure is the 90th percentile of latency."""

    kind: Literal["single-stream"]


class MultiStream(Config):
    """MLPerf: eight requests at once, again when all are answered; the figure is their 99th percentile."""

    kind: Literal["multi-stream"]
    samples_per_query: PositiveInt = SAMPLES_PER_QUERY


class Offline(Config):
    """MLPerf: all there is to do is there at once; the figure is the throughput. So many are `in_flight`."""

    kind: Literal["offline"]
    requests: PositiveInt
    in_flight: PositiveInt = 64


Open = PoissonArrivals | ConstantArrivals | GammaArrivals | OnOffArrivals | StagedArrivals | TraceArrivals
Closed = ClosedArrivals | SingleStream | MultiStream | Offline
Arrivals = Annotated[Open | Closed, Field(discriminator="kind")]


def changes(chosen: Arrivals) -> bool:
    """Whether the load changes on purpose, so that no run of it is steady."""
    return isinstance(chosen, OnOffArrivals | StagedArrivals | TraceArrivals)


def own_length(chosen: Arrivals) -> float | None:
    """The seconds that the arrivals take by themselves; None for those that go on for ever."""
    return chosen.length if isinstance(chosen, StagedArrivals | TraceArrivals) else None


def stages(chosen: Arrivals, span: float) -> list[Stage]:
    """The rates over `span` seconds; cut off, or continued at the last. Empty where rates do not decide."""
    match chosen:
        case PoissonArrivals(rate=rate) | ConstantArrivals(rate=rate) | GammaArrivals(rate=rate):
            return [Stage(span, rate, rate)]
        case OnOffArrivals():
            period = [
                Stage(chosen.on_for, chosen.rate, chosen.rate),
                Stage(chosen.off_for, chosen.off_rate, chosen.off_rate),
            ]
            return _cut(period * (int(span / (chosen.on_for + chosen.off_for)) + 1), span)
        case StagedArrivals():
            return _cut([_stage(stage) for stage in chosen.stages], span)
    return []


def variation(chosen: Arrivals) -> float:
    """The coefficient of variation of the gaps."""
    return 0.0 if isinstance(chosen, ConstantArrivals) else float(getattr(chosen, "cv", 1.0))


def offsets(chosen: Open, span: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """The planned send times of an open loop, in seconds."""
    if isinstance(chosen, TraceArrivals):
        return chosen.times[chosen.times < span]
    return arrivals.staged(stages(chosen, span), variation(chosen), generator)


def users(chosen: Closed) -> int:
    """How many wait for an answer at any time."""
    match chosen:
        case ClosedArrivals(users=count) | Offline(in_flight=count):
            return count
        case MultiStream() | SingleStream():
            return 1


def at_once(chosen: Arrivals) -> int:
    """How many requests one user sends together."""
    return chosen.samples_per_query if isinstance(chosen, MultiStream) else 1


def limit(chosen: Arrivals) -> int | None:
    """The number of requests after which a closed loop ends by itself."""
    return chosen.requests if isinstance(chosen, ClosedArrivals | Offline) else None


def _stage(config: StageConfig) -> Stage:
    return Stage(config.duration, config.rate, config.rate if config.to is None else config.to)


def _cut(chosen: list[Stage], span: float) -> list[Stage]:
    """The stages up to `span` seconds; where they end sooner, the last rate goes on."""
    kept: list[Stage] = []
    left = span
    for stage in chosen:
        if left <= 0:
            return kept
        taken = min(stage.duration, left)
        end = stage.start + (stage.end - stage.start) * taken / stage.duration
        kept.append(Stage(taken, stage.start, end))
        left -= taken
    if left > TINY:
        kept.append(Stage(left, kept[-1].end, kept[-1].end))
    return kept
