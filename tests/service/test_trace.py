"""Spans: only with an exporter, named by the route, continuing the caller's trace."""

import json
import subprocess
import sys

import httpx
import pytest

TRACE = "0af7651916cd43dd8448eb211c80319c"
COMMAND = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--json"]


def test_a_request_becomes_one_span_of_the_callers_trace(environment, bundles):
    variables = environment | {"OTEL_TRACES_EXPORTER": "console"}
    process = subprocess.Popen(
        [*COMMAND, str(bundles / "digits")], env=variables, text=True, stdout=-1, stderr=-1
    )
    try:
        url = json.loads(process.stdout.readline())["url"]
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "r7"}
        httpx.post(f"{url}/predict/digits-tiny", json={"pixels": [[255]]}, headers=headers)
        process.terminate()
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    span = json.loads(out)
    assert (span["name"], span["kind"]) == ("POST /predict/{model}", "SpanKind.SERVER")
    assert span["context"]["trace_id"] == f"0x{TRACE}"
    found = span["attributes"]
    assert (found["http.response.status_code"], found["modelpress.request_id"]) == (200, "r7")
    assert found["modelpress.model"].startswith("digits-tiny:")


@pytest.mark.parametrize("variables", [{}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_without_an_exporter_the_layer_is_not_there(environment, variables):
    show = "from service.service import MIDDLEWARE; print([layer.__name__ for layer, _ in MIDDLEWARE])"
    shown = subprocess.check_output([sys.executable, "-c", show], env=environment | variables, text=True)
    assert "RequestIdMiddleware" in shown
    assert "TraceMiddleware" not in shown


def test_an_exporter_that_is_not_installed_is_one_line(environment, bundles):
    variables = environment | {"OTEL_TRACES_EXPORTER": "abacus"}
    done = subprocess.run(
        [*COMMAND, str(bundles / "digits")], env=variables, capture_output=True, text=True, timeout=60
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "'abacus'" in line
    assert "pip install" in line
