import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from typer.testing import CliRunner

from loadtests.cli import app

SCENARIO = """\
arrivals: {kind: constant, rate: 20}
duration: 0.2
warmup: 0
metrics: null
mix: [{dialect: oip-infer, model: lenet5, inputs: [{name: x, shape: [1]}]}]
objectives: {p99_ms: %d}
"""


async def infer(request):
    """Half a second: slow enough that a busy machine's lag is no bottleneck."""
    await asyncio.sleep(0.5)
    found = request.path == "/v2/models/lenet5/infer"
    return web.json_response(
        {"outputs": [{"name": "y"}]} if found else {"error": "?"}, status=200 if found else 404
    )


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("limit", "exit_code", "outcome"), [(5000, 0, "pass"), (100, 1, "fail")])
def test_the_exit_code_is_the_verdict_and_stdout_only_json(
    serve, scenario_file, tmp_path, limit, exit_code, outcome
):
    path, out = scenario_file(SCENARIO % limit), tmp_path / "result.json"
    ran = invoke(path, "--url", serve(infer).url, "--json", "--out", out)
    assert (ran.exit_code, ran.stderr) == (exit_code, "")
    assert json.loads(ran.stdout) == json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(ran.stdout)["outcome"] == outcome


def test_the_table_is_for_people(serve, scenario_file):
    ran = invoke(scenario_file(SCENARIO % 5000), "--url", serve(infer).url, "--rate", 10)
    assert ran.exit_code == 0
    assert "PASS" in ran.stdout
    assert "requests 2 measured, 0 failed" in ran.stdout


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        ((SCENARIO % 1).replace("duration", "durration"), [], "scenario.yaml:2: durration: unknown key"),
        (SCENARIO % 1, ["--model", "lenet6"], "/v2/models/lenet6/infer answered 404"),
        (SCENARIO % 1, ["--rate", 0], "--rate: Input should be greater than 0"),
        (SCENARIO % 1, ["--url", "http://127.0.0.1:9"], "cannot reach http://127.0.0.1:9"),
        (SCENARIO % 1, ["--url", "here"], "an address looks like"),
        (SCENARIO % 1, ["--out", "/"], "--out"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2(serve, scenario_file, text, options, complaint):
    ran = invoke(scenario_file(text), "--url", serve(infer).url, *options)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert ran.stderr.count("\n") == 1


def interrupt(
    server, requests, *arguments, connections=0, how=lambda process: process.send_signal(signal.SIGINT)
):
    """The command in a process of its own, sent a Ctrl-C (or ended as `how` does) after so many requests.

    On each of so many connections, where that is said. None of the processes that it has started may be there
    afterwards.
    """
    # Whoever is started in the background of a shell inherits that interrupts are ignored.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-c", f"{heed}; from loadtests.cli import app; app()"]
    process = subprocess.Popen(
        [*program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    server.wait_for(requests, connections)
    started = psutil.Process(process.pid).children(recursive=True)
    how(process)
    stdout, stderr = process.communicate(timeout=120)
    assert not any(each.is_running() for each in started)
    return process.returncode, stdout, stderr


async def answer(request):
    return web.json_response({"outputs": [{"name": "y"}]})


def one_after_the_other(users):
    """Who asks the n-th time has read the answer before it, however late either is."""
    arrivals = f"{{kind: closed, users: {users}, think: 0.05}}"
    return (SCENARIO % 30_000).replace("{kind: constant, rate: 20}", arrivals)


def test_ctrl_c_writes_and_prints_what_was_measured(serve, scenario_file, tmp_path):
    server, out = serve(answer), tmp_path / "result.json"
    options = ["--url", server.url, "--duration", 60, "--json", "--out", out]
    code, stdout, stderr = interrupt(server, 12, scenario_file(one_after_the_other(1)), *options)
    assert code == 130
    assert "invalid run: the run was interrupted" in stderr
    assert "Traceback" not in stderr
    assert json.loads(stdout) == json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(stdout)["summary"]["requests"] >= 8


def test_a_run_heeds_sigterm_also_where_ctrl_c_is_ignored(serve, scenario_file, tmp_path):
    """As in the background of a shell."""
    server, out = serve(answer), tmp_path / "result.json"
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from loadtests.cli import app; app()"
    )
    scenario = scenario_file(one_after_the_other(1))
    command = [scenario, "--url", server.url, "--duration", 60, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    server.wait_for(12)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    document = json.loads(out.read_text(encoding="utf-8"))
    complaints = "".join(f"invalid run: {reason}\n" for reason in document["invalid"])
    assert (process.returncode, stderr.decode()) == (143, complaints)
    assert document["invalid"][0] == "the run was interrupted"
    assert document["summary"]["requests"] >= 8


def the_first_dies(process):
    psutil.Process(process.pid).children()[0].kill()


@pytest.mark.parametrize(
    ("how", "exit_code", "count"),
    [
        (lambda process: process.send_signal(signal.SIGINT), 130, 2),
        (lambda process: process.send_signal(signal.SIGTERM), 143, 2),
        (the_first_dies, 2, 1),
    ],
    ids=["Ctrl-C", "SIGTERM", "one dies"],
)
def test_an_end_reaches_every_process_and_what_they_have_measured_is_written(
    serve, scenario_file, tmp_path, how, exit_code, count
):
    server, out = serve(answer), tmp_path / "result.json"
    options = ["--url", server.url, "--duration", 60, "--processes", 2, "--out", out]
    scenario = scenario_file(one_after_the_other(2))
    code, _, stderr = interrupt(server, 12, scenario, *options, connections=2, how=how)
    assert (code, "Traceback" in stderr) == (exit_code, False)
    assert "invalid run: the run was interrupted" in stderr
    assert ("of 2 is lost" in stderr, "signal 9" in stderr) == (count == 1, count == 1)
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["generator"]["count"] == count
    assert document["summary"]["requests"] >= 8


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("sweep", ["--rates", "20,21,22", "--duration", 1]),
        ("search", ["--rate", 20, "--duration", 60]),
    ],
)
def test_ctrl_c_ends_a_series_with_the_points_it_has(serve, scenario_file, tmp_path, command, options):
    """In the third point of the sweep; in the search's first, as one that is sent late would be its last."""

    async def answer_the_first_points(request):
        if (
            server.requests > 44
        ):  # with a probe before each, so that none but the interrupted one waits for it
            await asyncio.Event().wait()
        return await answer(request)

    server, out = serve(answer_the_first_points), tmp_path / "series.json"
    scenario = scenario_file(SCENARIO.replace("p99_ms", "p50_ms") % 30_000)
    options = ["--url", server.url, *options, "--out", out]
    code, stdout, stderr = interrupt(server, 50, command, scenario, *options)
    assert (code, "Traceback" in stderr) == (130, False)
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["interrupted"]
    assert "interrupted" in document["note"]
    assert document["points"][0]["summary"]["requests"] >= 20
    assert stdout.startswith(command)


def test_a_server_that_dies_in_a_sweep_takes_no_load_that_was_measured(serve, scenario_file, tmp_path):
    async def die(request):
        if server.requests > 10:
            request.transport.abort()
        return await answer(request)

    server, out = serve(die), tmp_path / "series.json"
    options = ["--url", server.url, "--rates", "20,40,60", "--out", out]
    ran = invoke("sweep", scenario_file(SCENARIO % 5000), *options)
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1].startswith("error: interrupted before 60 requests/s: http://")
    document = json.loads(out.read_text(encoding="utf-8"))
    assert [point["load"] for point in document["points"]] == [20, 40]
    assert ran.stdout.startswith("sweep")


def test_ctrl_c_during_the_probe_says_that_there_is_nothing(serve, scenario_file):
    async def never(request):
        await asyncio.Event().wait()

    server = serve(never)
    code, stdout, stderr = interrupt(server, 1, scenario_file(SCENARIO % 50), "--url", server.url)
    assert (code, stdout) == (130, "")
    assert stderr == "error: interrupted before anything was measured\n"


def test_help_needs_none_of_the_libraries_of_a_run():
    program = "import sys, loadtests.cli; sys.exit(bool({'aiohttp', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


COMPARED = """\
arrivals: {kind: constant, rate: 100}
duration: 0.15
warmup: 0
metrics: null
mix: [{dialect: http}]
"""


async def hello(request):
    return web.Response()


def test_files_of_every_kind_are_written(serve, scenario_file, tmp_path):
    paths = {name: tmp_path / f"result.{name}" for name in ("html", "openmetrics", "out")}
    options = [part for name, path in paths.items() for part in (f"--{name}", path)]
    ran = invoke("run", scenario_file(COMPARED), "--url", serve(hello).url, *options)
    assert ran.exit_code in (0, 2)
    assert paths["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths["openmetrics"].read_text(encoding="utf-8").endswith("# EOF\n")
    shown = invoke("report", paths["out"], "--html", tmp_path / "again.html")
    assert shown.exit_code == 0  # it shows what was measured, and judges nothing
    assert (tmp_path / "again.html").read_bytes() == paths["html"].read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_takes_one_file_and_not_what_was_measured(serve, scenario_file, tmp_path):
    options = ["--out", "/dev/full", "--html", tmp_path / "result.html", "--quiet"]
    ran = invoke("run", scenario_file(COMPARED), "--url", serve(hello).url, *options)
    assert ran.exit_code == 2
    assert "error: --out /dev/full: No space left on device" in ran.stderr
    assert "throughput" in ran.stdout
    assert "throughput" in (tmp_path / "result.html").read_text(encoding="utf-8")


def test_shards_of_several_commands_are_merged(serve, scenario_file, tmp_path):
    server, scenario = serve(hello), scenario_file(COMPARED)
    parts = [tmp_path / f"{index}.json" for index in range(2)]
    for index, part in enumerate(parts):
        ran = invoke(scenario, "--url", server.url, "--shard", f"{index}/2", "--out", part)
        assert f"shard {index} of 2: merge it" in ran.stderr
    merged = invoke("merge", *parts, "--json")
    assert json.loads(merged.stdout)["counts"]["sent"] == 15
    assert invoke("merge", parts[0]).exit_code == 2


def test_a_sweep_prints_a_row_for_each_load_and_can_be_shown_again(serve, scenario_file, tmp_path):
    out, html = tmp_path / "sweep.json", tmp_path / "sweep.html"
    options = ["--url", serve(hello).url, "--users", "1,2", "--out", out]
    ran = invoke("sweep", scenario_file(COMPARED), *options)
    assert ran.exit_code == 0
    assert ran.stderr.count("/s answered") == 2
    assert ran.stdout.splitlines()[0].startswith("sweep")
    assert invoke("report", out).stdout == ran.stdout
    assert invoke("report", out, "--html", html).stdout == ""
    assert "Load test: sweep" in html.read_text(encoding="utf-8")


def test_a_search_finds_a_rate_or_says_that_there_is_none(serve, scenario_file):
    text = COMPARED + "objectives: {p50_ms: 0.001}\n"
    ran = invoke("search", scenario_file(text), "--url", serve(hello).url, "--rate", 60)
    assert ran.exit_code in (1, 2)
    assert "highest rate that meets the objectives none" in ran.stdout


def test_a_comparison_of_a_server_with_itself(serve, scenario_file):
    url = serve(hello).url
    ran = invoke("compare", scenario_file(COMPARED), "--url", url, "--pairs", 6, "--json")
    document = json.loads(ran.stdout)
    assert ran.exit_code in (0, 1, 2)
    assert [len(document[side]["runs"]) for side in ("first", "second")] == [6, 6]
    assert {ratio["measure"] for ratio in document["ratios"]} == {"latency p50", "goodput"}


def test_quick_finds_out_and_measures(serve):
    ran = invoke("quick", serve(infer).url, "--seconds", 4)
    assert "nothing that we know to ask for" in ran.stderr
    ran = invoke("quick", serve(infer).url, "--model", "lenet5", "--seconds", 2)
    assert ran.exit_code == 2
    ran = invoke("quick", serve(plain).url, "--seconds", 3)
    assert "speaks http: GET /" in ran.stderr
    assert "one client alone:" in ran.stderr
    assert "throughput" in ran.stdout


def test_a_server_that_dies_under_quick_takes_nothing_that_was_measured(serve, tmp_path):
    """It is dead to whoever connects after the one client alone, whose run is one connection."""
    served = Counter()

    async def die(request):
        here = id(request.transport)
        if here not in served and max(served.values(), default=0) > 3:
            request.transport.abort()
        alive.append(request.transport)  # so that no other has its id
        served[here] += 1
        return await plain(request)

    alive, out = [], tmp_path / "quick.json"
    ran = invoke("quick", serve(die).url, "--seconds", 8, "--out", out)
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1].startswith("error: interrupted before the load of")
    assert "throughput" in ran.stdout
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["scenario"]["arrivals"]["kind"] == "single-stream"
    assert document["summary"]["requests"] > 3


async def plain(request):
    await asyncio.sleep(0.02)
    return web.Response(status=200 if request.path == "/" else 404)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compare", "digits", "--url", "http://a", "--pairs", "3"], "--pairs 3: fewer than 6"),
        (["compare", "digits", *["--url", "http://a"] * 3], "--url: two can be compared, not 3"),
        (["sweep", "digits", "--url", "http://a"], "give either --rates or --users"),
        (["sweep", "digits", "--url", "http://a", "--users", "1,x"], "--users 1,x: numbers with commas"),
        (["sweep", "digits", "--url", "http://a", "--rates", "0"], "--rates 0: every one must be above 0"),
        (
            ["sweep", "digits", "--url", "http://a", "--rates", "inf"],
            "--rates inf: every one must be above 0",
        ),
        (
            ["sweep", "digits", "--url", "http://a", "--users", "nan"],
            "--users nan: every one must be above 0",
        ),
        (["sweep", "digits", "--url", "http://a", "--users", "1.5"], "--users 1.5: whole numbers, such as"),
        (["digits", "--url", "http://a..b"], "cannot reach http://a..b"),
        (["digits", "--url", "http://a", "--shard", "2/2"], "--shard 2/2: the first of four is 0/4"),
        (["digits", "--url", "http://a", "--shard", "0/2", "--processes", "2"], "a shard is one process"),
        (["digits", "--url", "http://a", "--processes", "100000"], "--processes 100000: each takes one core"),
        (["sweep", "digits", "--url", "http://a", "--users", "1e9"], "000 users are more than an address's"),
        (["digits", "--url", "http://a", "--duration", "1e300"], "e+301 requests are more than"),
        (["merge", "nowhere.json"], "cannot read nowhere.json"),
        (["report", "nowhere.json"], "cannot read nowhere.json"),
        (["digits", "--url", "http://a", "--html", "/nowhere/a.html"], "--html /nowhere/a.html: not a file"),
        (
            ["digits", "--url", "http://a", "--out", "x", "--html", "x"],
            "--out x: --html is to be written there",
        ),
        (["quick", "here"], "URL here: an address looks like"),
        (["search", "digits", "--url", "http://127.0.0.1:9", "--rate", "0.01"], "start higher"),
    ],
)
def test_a_wrong_option_of_any_command_is_one_line(arguments, complaint):
    ran = invoke(*arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert ran.stderr.count("\n") == 1
