"""Spans: only with an exporter, named by the route, continuing the caller's trace."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import httpx
import pytest

from service.errors import ServiceError
from service.middleware.trace import provider

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


EXPORTERS = """
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

class Grpc(InMemorySpanExporter):
    sent = []

    def export(self, spans):
        self.sent.extend(span.name for span in spans)
        return super().export(spans)

class Http(Grpc):
    sent = []
"""


@pytest.fixture
def exporters(tmp_path, monkeypatch) -> Iterator[ModuleType]:
    """A module with exporters that only remember what they are sent, installed as OTLP's two."""
    (tmp_path / "remembering.py").write_text(EXPORTERS)
    for name, kind in (("grpc", "Grpc"), ("http", "Http")):
        folder = tmp_path / f"opentelemetry_exporter_otlp_proto_{name}-99.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: opentelemetry-exporter-otlp-proto-{name}\nVersion: 99\n")
        entry = f"otlp_proto_{name} = remembering:{kind}"
        (folder / "entry_points.txt").write_text(f"[opentelemetry_traces_exporter]\n{entry}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("remembering")
    del sys.modules["remembering"]


@pytest.mark.parametrize(
    ("variables", "used"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "Grpc"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here"}, "Grpc"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://here"}, "Grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "Http"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://here",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            "Http",
        ),
    ],
)
def test_otlp_is_spoken_by_the_protocol_that_is_asked_for(exporters, variables, used):
    made = provider(variables)
    made.get_tracer("test").start_span("asked").end()
    made.shutdown()
    assert (exporters.Grpc.sent, exporters.Http.sent) == (
        (["asked"], []) if used == "Grpc" else ([], ["asked"])
    )


def test_a_protocol_that_otlp_does_not_know_is_refused():
    with pytest.raises(ServiceError, match="one of grpc, http/protobuf"):
        provider({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"})


def test_an_exporter_that_is_not_installed_is_one_line(environment, bundles):
    variables = environment | {"OTEL_TRACES_EXPORTER": "abacus"}
    done = subprocess.run(
        [*COMMAND, str(bundles / "digits")], env=variables, capture_output=True, text=True, timeout=60
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "'abacus'" in line
    assert "pip install" in line
