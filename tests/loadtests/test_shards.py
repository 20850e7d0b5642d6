import asyncio
import json
import subprocess
import time

import numpy as np
import pytest
from aiohttp import web

from loadtests import documents, shards
from loadtests.errors import InvalidOption, InvalidResult, LoadTestError, ProbeFailed
from loadtests.plan import Shard
from loadtests.result import build
from loadtests.sample import Sample
from loadtests.scenario import Scenario
from loadtests.schedule import ClosedArrivals
from tests.loadtests.recorded import recorded


async def answer(request):
    return web.Response()


def part(scenario, index, count, rows=20):
    samples = [
        Sample(0, planned=row * 0.1, sent=row * 0.1, ended=row * 0.1 + 0.01 * (row + 1), row=row)
        for row in range(index, rows, count)
    ]
    return build(scenario, "http://127.0.0.1:1", recorded(samples), (index, count))


@pytest.fixture
def scenario(scenario):
    return scenario(duration=2)


def test_merged_shards_are_the_run_of_one_generator(scenario):
    whole = part(scenario, 0, 1)
    merged = shards.merge([part(scenario, index, 3) for index in (2, 0, 1)])
    assert merged.summary == whole.summary
    assert merged.samples == whole.samples
    assert merged.outcome == "pass"
    assert (merged.counts, merged.generator.count) == (whole.counts, 3)


def test_a_shard_alone_is_no_run(scenario):
    alone = part(scenario, 0, 2)
    assert alone.outcome == "invalid"
    assert "shard 0 of 2" in alone.invalid[0]


def test_what_is_not_every_shard_of_one_run_is_refused(scenario):
    with pytest.raises(InvalidResult, match="not all shards of one run: 0/2, 0/2"):
        shards.merge([part(scenario, 0, 2), part(scenario, 0, 2)])
    other = scenario.model_copy(update={"seed": 1})
    with pytest.raises(InvalidResult, match="different scenarios"):
        shards.merge([part(scenario, 0, 2), part(other, 1, 2)])


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "0/0"])
def test_a_shard_has_a_number_below_their_count(text):
    assert shards.parse("3/4") == Shard(3, 4)
    with pytest.raises(InvalidOption, match="the first of four is 0/4"):
        shards.parse(text)


def test_a_result_is_read_where_the_files_of_its_scenario_are_not(scenario, tmp_path):
    """As on the machine that merges what pods have written."""
    files = {name: tmp_path / name for name in ("prompts.txt", "text.txt", "trace.csv", "x.npy")}
    for name in ("prompts.txt", "text.txt"):
        files[name].write_text("one\ntwo\n", encoding="utf-8")
    files["trace.csv"].write_text("timestamp,request\n0,1\n1,2\n", encoding="utf-8")
    np.save(files["x.npy"], np.zeros(1))
    completions = {"dialect": "openai-completions", "model": "m"}
    mix = [
        completions | {"prompts_file": str(files["prompts.txt"])},
        completions | {"generated": {"text": str(files["text.txt"])}},
        {"dialect": "oip-infer", "model": "m", "inputs": [{"name": "x", "shape": [1], "files": "x.npy"}]},
    ]
    arrivals = {"kind": "trace", "file": str(files["trace.csv"])}
    keys = {"arrivals": arrivals, "mix": mix, "warmup": 0, "metrics": None}
    runs = {}
    for duration in (None, 2):
        run = Scenario.model_validate(keys | {"duration": duration}, context={"folder": tmp_path})
        runs[duration] = tmp_path / f"{duration}.json"
        runs[duration].write_text(part(run, 0, 1).model_dump_json(), encoding="utf-8")
    for path in files.values():
        path.unlink()
    whole = documents.read_run(runs[2])
    assert shards.merge([whole]).summary == whole.summary
    with pytest.raises(InvalidResult, match="merge where that is"):
        shards.merge([documents.read_run(runs[None])])


def test_a_merged_result_names_the_machine_that_sent(scenario):
    sent = part(scenario, 0, 1)
    elsewhere = sent.model_copy(update={"machine": sent.machine.model_copy(update={"platform": "a pod"})})
    assert shards.merge([elsewhere]).machine.platform == "a pod"


def test_two_processes_send_one_plan(serve, scenario):
    server = serve(answer)
    result = shards.run(scenario, server.url, 2)
    assert result.counts.sent == result.counts.planned == 80
    assert sorted(result.samples.row) == list(range(80))
    assert result.samples.planned_ms == pytest.approx([25 * row for row in range(80)], abs=0.01)
    assert result.generator.count == 2


def test_a_generator_that_cannot_run_says_why(serve, scenario):
    server = serve(answer)
    server.close()
    with pytest.raises(Exception, match="cannot reach") as caught:
        shards.run(scenario, server.url, 2)
    assert not isinstance(caught.value, ProbeFailed)


def test_a_generator_that_fails_ends_the_others_instead_of_waiting_for_them(serve, scenario):
    """Two users cannot be shared among three. The others are asking still, and say that they were ended."""

    async def never(request):
        await asyncio.Event().wait()

    closed = scenario.model_copy(update={"arrivals": ClosedArrivals(kind="closed", users=2), "timeout": 600})
    began = time.monotonic()
    with pytest.raises(LoadTestError, match="more than there are users"):
        shards.run(closed, serve(never).url, 3)
    assert time.monotonic() - began < 300


def test_the_reason_is_that_of_the_generator_that_failed_of_itself(tmp_path):
    """And not what one says that was ended for it, and comes before it."""
    said = ("error: interrupted before anything was measured", "error: no such model")
    generators = []
    for index, line in enumerate(said):
        process = subprocess.Popen(
            ["sh", "-c", f"echo '{line}' >&2; exit 2"], stderr=subprocess.PIPE, text=True
        )
        process.wait()
        generators.append(shards.Generator(process, tmp_path / f"{index}.json"))
    with pytest.raises(LoadTestError, match="no such model"):
        shards._gather(generators, False, generators[1:])
    for process, _ in generators:
        process.stderr.close()


def test_several_processes_start_when_they_are_told_to(serve, scenario):
    """A start that has passed by the time they are there: all is sent late."""
    short = scenario.model_copy(update={"duration": 0.1})
    result = shards.run(short, serve(answer).url, 2, time.time())
    assert min(result.samples.lag_ms) > 20


def test_the_document_of_a_shard_can_be_read_again(scenario, tmp_path):
    path = tmp_path / "part.json"
    path.write_text(part(scenario, 1, 2).model_dump_json(), encoding="utf-8")
    again = documents.read_run(path)
    assert again.shard == (1, 2)
    assert json.loads(again.model_dump_json()) == json.loads(path.read_text(encoding="utf-8"))
