"""A span for each request, where an OpenTelemetry exporter is configured; otherwise this layer is not there.

`OTEL_TRACES_EXPORTER=otlp` (or `console`, or any exporter that is installed) switches it on, as does
`OTEL_EXPORTER_OTLP_ENDPOINT` by itself. `OTEL_EXPORTER_OTLP_PROTOCOL` says which of OTLP's exporters it is,
`grpc` where it is not set; the rest the exporter reads from its own variables. A caller's `traceparent` is
continued. BentoML's own tracing is left out: it names spans by the raw path and
makes three of each request.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Receive, Scope, Send

from service import context
from service.errors import ServiceError
from service.middleware.measure import template

VARIABLE = "OTEL_TRACES_EXPORTER"
# What is said of traces alone comes first.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# One name in `VARIABLE`, and a package for each protocol.
OTLP, _OTLP_BY = "otlp", {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_GROUP = "opentelemetry_traces_exporter"


class TraceMiddleware:
    """Reports each HTTP request to `provider` when it is over."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self.app = app
        self.tracer = provider.get_tracer("modelpress")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"]
        with self.tracer.start_as_current_span(method, extract(headers), SpanKind.SERVER) as span:
            await self.app(scope, receive, send)
            # The route is known only now; a raw path would make a name of each guess.
            route = template(scope)
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.request.method": method, "http.route": route} | _asked())
            if (request := context.current()) and request.status and request.status >= 500:
                span.set_status(StatusCode.ERROR)


def provider(environment: Mapping[str, str]) -> TracerProvider | None:
    """Where spans go; None where no exporter is configured. Raises ServiceError for one not installed."""
    given = environment.get(VARIABLE) or (OTLP if _first(ENDPOINTS, environment) else "none")
    names = [name.strip() for name in given.split(",")]
    if names == ["none"]:
        return None
    made = TracerProvider(resource=Resource.create({"service.name": "modelpress"}))
    for name in names:
        made.add_span_processor(BatchSpanProcessor(_exporter(_by_protocol(name, environment))))
    return made


def _first(variables: Sequence[str], environment: Mapping[str, str]) -> str:
    return next((found for name in variables if (found := environment.get(name, "").strip())), "")


def _by_protocol(name: str, environment: Mapping[str, str]) -> str:
    """The exporter's own name: of OTLP's, the one that speaks the protocol asked for. Raises ServiceError."""
    protocol = _first(PROTOCOLS, environment) or "grpc"
    if name != OTLP:
        return name
    if protocol not in _OTLP_BY:
        raise ServiceError(
            f"{PROTOCOLS[1]}={protocol}: it is one of {', '.join(_OTLP_BY)}; change or unset it"
        )
    return _OTLP_BY[protocol]


def _exporter(name: str) -> SpanExporter:
    for found in entry_points(group=_GROUP, name=name):
        exporter: SpanExporter = found.load()()
        return exporter
    known = ", ".join(sorted(entry_points(group=_GROUP).names))
    raise ServiceError(
        f"{VARIABLE}: no exporter '{name}' is installed, only {known}; "
        "`pip install opentelemetry-exporter-otlp` for OTLP"
    )


def _asked() -> dict[str, str | int]:
    request = context.current()
    if request is None:
        return {}
    found: dict[str, str | int] = {
        "modelpress.request_id": request.id,
        "http.response.status_code": request.status or 0,
    }
    if request.manifest:
        found["modelpress.model"] = f"{request.manifest.tag}:{request.manifest.version}"
    return found
