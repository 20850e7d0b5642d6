import numpy as np
import pytest
from pydantic import TypeAdapter

from loadtests import schedule
from loadtests.schedule import Arrivals


def arrivals(**keys):
    return TypeAdapter[Arrivals](Arrivals).validate_python(keys)


def offsets(span, **keys):
    return schedule.offsets(arrivals(**keys), span, np.random.default_rng(0))


def test_on_off_sends_only_while_it_is_on():
    times = offsets(20, kind="on-off", rate=100, on_for=2, off_for=3)
    assert np.all(times % 5 < 2)
    assert len(times) == pytest.approx(800, rel=0.1)


def test_on_off_may_go_on_at_a_lower_rate():
    times = offsets(20, kind="on-off", rate=100, on_for=2, off_for=3, off_rate=10, cv=0)
    assert (times % 5 >= 2).sum() == pytest.approx(120, abs=4)


def test_stages_hold_ramp_and_go_on_at_their_last_rate():
    stages = [{"duration": 10, "rate": 10}, {"duration": 10, "rate": 10, "to": 50}]
    times = offsets(30, kind="stages", stages=stages, cv=0)
    assert np.histogram(times, [0, 10, 20, 30])[0] == pytest.approx([100, 300, 500], abs=1)


def test_a_shorter_run_cuts_the_stages_off():
    stages = [{"duration": 10, "rate": 0, "to": 100}]
    times = offsets(5, kind="stages", stages=stages, cv=0)
    assert len(times) == pytest.approx(125, abs=1)
    assert times[-1] < 5


@pytest.mark.parametrize(
    ("keys", "users", "at_once", "limit"),
    [
        ({"kind": "closed", "users": 7}, 7, 1, None),
        ({"kind": "closed", "users": 7, "requests": 20}, 7, 1, 20),
        ({"kind": "single-stream"}, 1, 1, None),
        ({"kind": "multi-stream"}, 1, 8, None),
        ({"kind": "offline", "requests": 100}, 64, 1, 100),
    ],
)
def test_closed_loops_and_mlperfs_scenarios(keys, users, at_once, limit):
    chosen = arrivals(**keys)
    assert schedule.users(chosen) == users
    assert schedule.at_once(chosen) == at_once
    assert schedule.limit(chosen) == limit


def test_mlperfs_server_scenario_is_a_poisson_process():
    assert np.array_equal(offsets(5, kind="server", rate=20), offsets(5, kind="poisson", rate=20))
