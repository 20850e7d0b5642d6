import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.errors import InvalidOption, InvalidScenario
from loadtests.plan import draw
from loadtests.scenario import Scenario

MIX = [
    {"dialect": "openai-completions", "model": "m", "prompts": ["a", "b", "c"], "weight": 3},
    {"dialect": "oip-infer", "model": "n", "inputs": [{"name": "x", "shape": [4]}]},
]


def build(**changes):
    keys = {"arrivals": {"kind": "poisson", "rate": 300}, "duration": 3, "warmup": 1, "mix": MIX}
    return Scenario.model_validate(keys | changes)


def shown(plan):
    return [(arrival.offset, arrival.request, str(arrival.url), arrival.call.body) for arrival in plan]


@given(st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_plan_and_another_one_another(seed):
    def plan(seed):
        return shown(draw(build(seed=seed, duration=0.5, warmup=0), "http://127.0.0.1:1"))

    assert plan(seed) == plan(seed)
    assert plan(seed) != plan(seed + 1)


def test_the_mix_follows_the_weights_and_every_body_is_used():
    plan = draw(build(), "http://127.0.0.1:1")
    share = sum(arrival.request == 0 for arrival in plan) / len(plan)
    assert share == pytest.approx(0.75, abs=0.05)
    prompts = {json.loads(arrival.call.body)["prompt"] for arrival in plan if arrival.request == 0}
    assert prompts == {"a", "b", "c"}


def test_changing_the_mix_leaves_the_times_as_they_were():
    both, one = (draw(build(mix=mix), "http://127.0.0.1:1") for mix in (MIX, MIX[:1]))
    assert [arrival.offset for arrival in both] == [arrival.offset for arrival in one]


def test_the_plan_covers_the_warm_up_and_the_duration():
    offsets = [arrival.offset for arrival in draw(build(), "http://127.0.0.1:1")]
    assert 0 <= offsets[0] < 0.1
    assert 3.9 < offsets[-1] < 4


@pytest.mark.parametrize("base", ["http://host:1/prefix", "http://host:1/prefix/"])
def test_the_address_may_have_a_path_of_its_own(base):
    plan = draw(build(mix=[{"dialect": "http", "path": "/a?b=c%20d"}]), base)
    assert str(plan[0].url) == "http://host:1/prefix/a?b=c%20d"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3000", "ftp://host", "http://", "http://host:port", "http://me:secret@host"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidOption, match="--url") as caught:
        draw(build(), url)
    assert "secret" not in str(caught.value).replace("put a secret", "")


def test_a_plan_without_a_measured_request_or_beyond_memory_is_refused():
    with pytest.raises(InvalidScenario, match="no request falls into"):
        draw(build(arrivals={"kind": "constant", "rate": 0.5}, duration=0.5), "http://127.0.0.1:1")
    with pytest.raises(InvalidScenario, match="shorten the run"):
        draw(build(duration=1e6), "http://127.0.0.1:1")
