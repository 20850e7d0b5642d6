"""The BentoML service: typed native endpoints, and the other dialects mounted beside them.

`bentoml serve service.service:ModelPress` and `modelpress serve` start the same thing. An image is base64
text here: BentoML's own file fields would also fetch a URL for whoever asks.
"""

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import bentoml
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from runtime.errors import ModelpressError
from runtime.manifest import Task
from runtime.sampling import SamplingParams
from service import access_log, natural, store, traffic
from service.app import create_app
from service.catalog import Catalog
from service.completion import answers, complete, encode, requests
from service.disconnect import while_connected
from service.errors import BodyTooLarge
from service.jobs.jobs import Jobs
from service.keys import Keyring
from service.middleware.authorize import AuthorizeMiddleware
from service.middleware.bento import BentoMiddleware
from service.middleware.body_limit import BodyLimitMiddleware
from service.middleware.catch_all import CatchAllMiddleware
from service.middleware.deadline import DeadlineMiddleware
from service.middleware.measure import MeasureMiddleware
from service.middleware.request_id import RequestIdMiddleware
from service.middleware.shortcut import ShortcutMiddleware
from service.middleware.traffic import TrafficMiddleware
from service.problem import problem_response
from service.quota import Quotas
from service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

settings = Settings.from_environment()
access_log.configure(settings.access_log)


def is_worth_a_traceback(record: logging.LogRecord) -> bool:
    """Whether a record of BentoML's is about anything but what a client did, which is answered anyway."""
    theirs = ValidationError | BodyTooLarge | ClientDisconnect
    return not (record.exc_info and isinstance(record.exc_info[1], theirs))


logging.getLogger("bentoml._internal.server.http_app").addFilter(is_worth_a_traceback)


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    version: str
    task: Task
    source: str


class Generated(BaseModel):
    """An answer of a text model."""

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


def load_catalog() -> Catalog:
    """What the environment names; else what the Bento was built with; else the whole model store."""
    return Catalog.open(store.find_all(settings.bundles or _baked()), settings, traffic.here)


def _baked() -> Sequence[str]:
    bento = ModelPress.bento  # type: ignore[attr-defined]
    return [str(model.tag) for model in bento.info.all_models] if bento else []


app = create_app(load_catalog, Jobs(settings))


def typed_errors(endpoint: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Answer our own errors ourselves: BentoML would make a 500 of them."""

    @functools.wraps(endpoint)
    async def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return await endpoint(*args, **kwargs)
        except (ModelpressError, ClientDisconnect) as error:
            context = kwargs["ctx"]
            response = problem_response(context.request.scope, error)
            # BentoML writes this status over the response's own.
            context.response.status_code = response.status_code
            return response

    return answer


@bentoml.asgi_app(app, path="/")
@bentoml.service(
    name="modelpress",
    # Its metrics make a series of every path that a stranger asks for; ours take their place at /metrics.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    # Its tracing costs time even without an exporter; `middleware/trace.py` is there only with one.
    tracing={"excluded_urls": ".*"},
    # It covers the time to the first byte only and cannot be switched off: longer than any answer here.
    traffic={"timeout": 300},
)
class ModelPress:
    """Compressed models behind REST: native, OpenAI's `/v1` and the Open Inference Protocol's `/v2`."""

    @bentoml.api  # type: ignore[untyped-decorator]
    async def models(self) -> list[ModelInfo]:
        """What is served."""
        return [
            ModelInfo(name=m.tag, version=m.version, task=m.task, source=m.lineage.source)
            for m in app.state.catalog.manifests
        ]

    @bentoml.api  # type: ignore[untyped-decorator]
    @typed_errors
    async def predict(
        self,
        model: str,
        ctx: bentoml.Context,
        text: str | list[str] | None = None,
        image: str | list[str] | None = None,
        pixels: list[Any] | None = None,
        graph: dict[str, Any] | list[dict[str, Any]] | None = None,
        tensor: list[Any] | None = None,
        question: str | list[str] | None = None,
        context: str | list[str] | None = None,
        max_tokens: int | None = None,
    ) -> list[dict[str, Any]]:
        """Answers in the task's words to texts, images (base64, pixels), graphs, questions, or one tensor."""
        found = app.state.catalog.find(model)
        asked = natural.Question(
            text=text,
            image=image,
            pixels=pixels,
            graph=graph,
            tensor=tensor,
            question=question,
            context=context,
            max_tokens=max_tokens,
        )
        return await natural.ask(app.state.catalog.pool, found, asked, ctx.request.receive)

    @bentoml.api  # type: ignore[untyped-decorator]
    @typed_errors
    async def generate(
        self,
        model: str,
        prompt: str,
        ctx: bentoml.Context,
        max_tokens: int = 16,
        temperature: float = 1.0,
        stop: list[str] | None = None,
    ) -> Generated:
        """Continue a prompt. `/v1/completions` streams and has more to set."""
        engine = app.state.catalog.text(model)
        prompts = await encode(app.state.catalog.pool, engine, [prompt])
        asked = requests(prompts, SamplingParams(max_tokens, temperature))
        pieces = complete(engine, asked, stop or ())
        (answer,) = await while_connected(ctx.request.receive, answers(pieces, 1))
        return Generated(
            text=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=len(prompts[0]),
            completion_tokens=answer.tokens,
        )

    async def __is_ready__(self) -> bool:
        return bool(app.state.catalog.ready)


def tracing() -> "TracerProvider | None":
    """Where spans go, if anywhere. OpenTelemetry's SDK is imported only then."""
    if not any(os.environ.get(name) for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT")):
        return None
    from service.middleware.trace import provider

    return provider(os.environ)


# From the outside in.
MIDDLEWARE: list[tuple[Any, dict[str, Any]]] = [
    (RequestIdMiddleware, {}),
    (MeasureMiddleware, {}),
    (CatchAllMiddleware, {}),
    (
        AuthorizeMiddleware,
        {
            "keys": Keyring.read(settings.keys_file, settings.api_keys),
            "quotas": Quotas(settings.key_concurrency, settings.key_rate, settings.shared),
            "allow_public": settings.allow_public,
        },
    ),
    (TrafficMiddleware, {"traffic": traffic.here}),
    (DeadlineMiddleware, {"default": settings.timeout}),
    (BodyLimitMiddleware, {"limit": settings.max_body_bytes}),
    (ShortcutMiddleware, {"target": app}),
    (BentoMiddleware, {}),
]
if tracer_provider := tracing():
    from service.middleware.trace import TraceMiddleware

    # Inside of what opens the request's context.
    MIDDLEWARE.insert(1, (TraceMiddleware, {"provider": tracer_provider}))
# The page at / shows all routes, those that only BentoML knows of, too.
app.state.native = lambda: ModelPress.openapi_spec.asdict()  # type: ignore[attr-defined]
for middleware, arguments in MIDDLEWARE:
    ModelPress.add_asgi_middleware(middleware, **arguments)  # type: ignore[attr-defined]
# `bentoml build` puts these models into the Bento.
ModelPress.models.extend(
    bentoml.models.BentoModel(tag) for tag in settings.bundles if not store.is_folder(tag)
)


def asgi() -> ASGIApp:
    """The service for a server in this process: our layers outside, and without two of BentoML's own.

    Its timeout runs every request in a second task, and does not end an answer that has begun. Its tracing
    parses every request's headers even where nothing is exported.
    """
    outer: Starlette = ModelPress.to_asgi()  # type: ignore[attr-defined]
    ours = {middleware for middleware, _ in MIDDLEWARE}
    left_out = {TimeoutMiddleware, OpenTelemetryMiddleware, *ours}
    outer.user_middleware = [each for each in outer.user_middleware if each.cls not in left_out]
    return functools.reduce(lambda app, layer: layer[0](app, **layer[1]), reversed(MIDDLEWARE), outer)
