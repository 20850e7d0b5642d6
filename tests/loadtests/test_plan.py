import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import address
from loadtests import plan as plans
from loadtests.client import Client
from loadtests.errors import InvalidOption, InvalidScenario
from loadtests.plan import WHOLE, Shard
from loadtests.sample import Manner
from loadtests.scenario import Scenario
from loadtests.schedule import TraceArrivals

MIX = [
    {"dialect": "openai-completions", "model": "m", "prompts": ["a", "b", "c"], "weight": 3},
    {"dialect": "oip-infer", "model": "n", "inputs": [{"name": "x", "shape": [4]}]},
]


def build(**changes):
    keys = {"arrivals": {"kind": "poisson", "rate": 300}, "duration": 3, "warmup": 1, "mix": MIX}
    return Scenario.model_validate(keys | changes)


def draw(scenario, url="http://127.0.0.1:1", shard=WHOLE):
    return plans.draw(scenario, Client(address.parse(url), scenario.headers, scenario.key_header), shard)


def shown(plan):
    return [(plan.offset[row], plan.call(row).request, plan.call(row).wire) for row in plan.heads]


def body(plan, row):
    return json.loads(plan.call(row).call.body[0])


@given(st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_plan_and_another_one_another(seed):
    def plan(seed):
        return shown(draw(build(seed=seed, duration=0.5, warmup=0)))

    assert plan(seed) == plan(seed)
    assert plan(seed) != plan(seed + 1)


def test_the_mix_follows_the_weights_and_every_body_is_used():
    plan = draw(build())
    first = [row for row in plan.heads if plan.call(row).request == 0]
    assert len(first) / len(plan) == pytest.approx(0.75, abs=0.05)
    assert {body(plan, row)["prompt"] for row in first} == {"a", "b", "c"}


def test_changing_the_mix_leaves_the_times_as_they_were():
    both, one = (draw(build(mix=mix)) for mix in (MIX, MIX[:1]))
    assert both.offset.tolist() == one.offset.tolist()


def test_the_plan_covers_the_warm_up_and_the_duration():
    offsets = draw(build()).offset
    assert 0 <= offsets[0] < 0.1
    assert 3.9 < offsets[-1] < 4


@pytest.mark.parametrize("base", ["http://host:1/prefix", "http://host:1/prefix/"])
def test_the_address_may_have_a_path_of_its_own(base):
    plan = draw(build(mix=[{"dialect": "http", "path": "/a?b=c%20d"}]), base)
    assert plan.call(0).wire.startswith(b"GET /prefix/a?b=c%20d HTTP/1.1\r\nHost: host:1\r\n")


def test_a_plan_without_a_measured_request_or_beyond_memory_is_refused():
    with pytest.raises(InvalidScenario, match="no request falls into"):
        draw(build(arrivals={"kind": "constant", "rate": 0.5}, duration=0.5))
    with pytest.raises(InvalidScenario, match="shorten the run"):
        draw(build(duration=1e6))
    seldom = {"kind": "on-off", "rate": 1e-9, "on_for": 1e-3, "off_for": 1e-3}
    with pytest.raises(InvalidScenario, match="comes and goes more than 5,000,000 times"):
        draw(build(arrivals=seldom, duration=1e9))
    with pytest.raises(InvalidScenario, match="65,536 users are more than an address's 65,535 ports"):
        draw(build(arrivals={"kind": "closed", "users": 65_536}))


def test_shards_share_one_plan_and_send_each_of_its_requests_once():
    whole = draw(build())
    parts = [draw(build(), shard=Shard(index, 3)) for index in range(3)]
    assert sorted(row for part in parts for row in part.heads) == list(whole.heads)
    assert all(np.array_equal(part.offset, whole.offset) for part in parts)
    assert sum(part.requests for part in parts) == whole.requests == len(whole)


def test_users_are_shared_among_shards_as_evenly_as_can_be():
    closed = build(arrivals={"kind": "closed", "users": 5})
    assert [draw(closed, shard=Shard(index, 3)).users for index in range(3)] == [2, 2, 1]
    with pytest.raises(InvalidOption, match="more than there are users"):
        draw(closed, shard=Shard(5, 6))


def test_a_conversation_is_a_head_and_its_later_turns():
    chat = {"dialect": "openai-chat", "model": "m", "prompts": ["a", "b"], "turns": 3, "think": 2}
    plan = draw(build(mix=[chat, MIX[1]]))
    heads = list(plan.heads)
    chats = [row for row in heads if plan.call(row).request == 0]
    assert all(plan.is_later(row + 1) and plan.is_later(row + 2) for row in chats)
    assert not any(plan.is_later(row) for row in heads)
    assert all(plan.pause[row + 1] == 2 for row in chats)
    assert np.isnan(plan.offset[chats[0] + 1])
    assert plan.requests == len(plan) == len(heads) + 2 * len(chats)


def test_clients_leave_and_dawdle_at_the_shares_that_were_set():
    entry = MIX[1] | {"cancel": {"share": 0.2, "after": 0.5}, "slow": {"share": 0.3}}
    plan = draw(build(mix=[entry], duration=30))
    for manner, share in ((Manner.CANCEL, 0.2), (Manner.SLOW, 0.3), (Manner.NORMAL, 0.5)):
        assert (plan.manner == manner).mean() == pytest.approx(share, abs=0.02)
    cancelled = int(np.flatnonzero(plan.manner == Manner.CANCEL)[0])
    assert plan.conduct(cancelled).cancel_after == 0.5


def test_a_conversation_may_be_as_long_as_it_likes():
    chat = {"dialect": "openai-chat", "model": "m", "prompts": ["a"], "turns": 1100}
    plan = draw(build(arrivals={"kind": "closed", "users": 1, "requests": 1}, duration=None, mix=[chat]))
    assert len(plan) == 1100


def test_the_times_of_a_trace_are_read_once(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time\n0\n1\n3\n", encoding="utf-8")
    arrivals = TraceArrivals(kind="trace", file=path, speed=2)
    assert arrivals.times.tolist() == [0, 0.5, 1.5]
    path.unlink()
    assert 1.5 < arrivals.length < 1.6


def test_a_trace_gives_times_sizes_and_entries(tmp_path):
    (tmp_path / "trace.csv").write_text(
        "timestamp,input_tokens,output_tokens,request\n5,7,3,0\n6.5,20,4,1\n", encoding="utf-8"
    )
    generated = {"generated": {"words": 10, "count": 2}}
    mix = [
        {"dialect": "openai-completions", "model": "m"} | generated,
        {"dialect": "openai-chat", "model": "m"} | generated,
    ]
    arrivals = {"kind": "trace", "file": str(tmp_path / "trace.csv"), "speed": 2}
    plan = draw(build(arrivals=arrivals, duration=None, warmup=0, mix=mix))
    assert plan.offset.tolist() == [0, 0.75]
    assert len(body(plan, 0)["prompt"].split()) == 7
    assert len(body(plan, 1)["messages"][0]["content"].split()) == 20
    assert [body(plan, row)["max_tokens"] for row in (0, 1)] == [3, 4]


def test_a_million_requests_take_little_memory():
    plan = draw(build(arrivals={"kind": "constant", "rate": 10_000}, duration=100, warmup=0))
    assert len(plan) == 1_000_000
    columns = (plan.pick, plan.offset, plan.pause, plan.manner, plan.later)
    assert sum(column.nbytes for column in columns) / len(plan) < 25
