import asyncio
import json
import signal
import subprocess
import sys

import pytest
from aiohttp import web
from typer.testing import CliRunner

from loadtests.cli import app

SCENARIO = """\
arrivals: {kind: constant, rate: 20}
duration: 0.2
warmup: 0
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


def interrupt(server, requests, *arguments):
    """The command in a process of its own, sent a Ctrl-C once so many requests have arrived."""
    program = [sys.executable, "-c", "from loadtests.cli import app; app()"]
    process = subprocess.Popen(
        [*program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    server.wait_for(requests)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    return process.returncode, stdout, stderr


def test_ctrl_c_writes_and_prints_what_was_measured(serve, scenario_file, tmp_path):
    async def answer(request):
        return web.json_response({"outputs": [{"name": "y"}]})

    server, out = serve(answer), tmp_path / "result.json"
    options = ["--url", server.url, "--duration", 60, "--json", "--out", out]
    code, stdout, stderr = interrupt(server, 12, scenario_file(SCENARIO % 50), *options)
    assert code == 2
    assert "invalid run: the run was interrupted" in stderr
    assert "Traceback" not in stderr
    assert json.loads(stdout) == json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(stdout)["summary"]["requests"] >= 8


def test_ctrl_c_during_the_probe_says_that_there_is_nothing(serve, scenario_file):
    async def never(request):
        await asyncio.Event().wait()

    server = serve(never)
    code, stdout, stderr = interrupt(server, 1, scenario_file(SCENARIO % 50), "--url", server.url)
    assert (code, stdout) == (2, "")
    assert stderr == "error: interrupted before anything was measured\n"


def test_help_needs_none_of_the_libraries_of_a_run():
    program = "import sys, loadtests.cli; sys.exit(bool({'aiohttp', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
