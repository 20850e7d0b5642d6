"""Measures one scenario at several loads, in turn: rates of an open loop, or users of a closed one."""

from collections.abc import Callable, Sequence

from loadtests.errors import InvalidOption, LoadTestError
from loadtests.point import INTERRUPTED, Point, Series, cut_short, knee, point
from loadtests.result import Result
from loadtests.scenario import Scenario, changed

Measure = Callable[[Scenario], Result]


def at_rates(scenario: Scenario, rates: Sequence[float], measure: Measure) -> Series:
    """The scenario's own arrivals, faster and slower. Raises InvalidOption for arrivals without a rate."""
    return _sweep([(rate, with_rate(scenario, rate)) for rate in sorted(rates)], "requests/s", measure)


def at_users(scenario: Scenario, users: Sequence[int], measure: Measure) -> Series:
    """A closed loop, whatever the scenario's arrivals are."""
    loads = [(float(count), with_users(scenario, count)) for count in sorted(users)]
    return _sweep(loads, "users", measure)


def with_rate(scenario: Scenario, rate: float) -> Scenario:
    """The scenario at another rate."""
    if not hasattr(scenario.arrivals, "rate"):
        raise InvalidOption(
            f"{scenario.arrivals.kind} arrivals have no rate to change; use poisson or constant"
        )
    return changed(scenario, {"arrivals.rate": rate})


def with_users(scenario: Scenario, users: int) -> Scenario:
    """The scenario with so many users who wait for their answers."""
    closed = {"kind": "closed", "users": users, "think": getattr(scenario.arrivals, "think", 0.0)}
    return changed(scenario, {"arrivals": closed})


def _sweep(loads: Sequence[tuple[float, Scenario]], unit: str, measure: Measure) -> Series:
    points: list[Point] = []
    latest: Result | None = None
    note = ""
    for load, scenario in loads:
        try:
            latest = measure(scenario)
        except (KeyboardInterrupt, LoadTestError) as end:
            if latest is None:
                raise
            note = cut_short(end, f"{load:g} {unit}")
            break
        points.append(point(latest, load))
        if latest.course.interrupted_ms is not None:
            note = f"{INTERRUPTED} at {load:g} {unit}"
            break
    assert latest is not None
    return Series.model_validate(
        {
            "kind": "sweep",
            "unit": unit,
            "points": points,
            "knee": knee(points),
            "interrupted": bool(note),
            "note": note,
            "url": latest.url,
            "scenario": latest.scenario,
            "machine": latest.machine,
            "versions": latest.versions,
            "server": latest.server,
        }
    )
