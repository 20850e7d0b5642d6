"""The models being served, by name: loaded once, started and stopped together.

It does not find bundles (`store.py`) and knows no dialect.
"""

from collections.abc import Iterable
from time import perf_counter

from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError
from runtime.manifest import Manifest
from runtime.model import TextModel, load_model
from runtime.session import available_cores
from runtime.suggest import nearest
from runtime.tensor import TensorModel
from service import metrics
from service.engine import Engine
from service.errors import UnknownModel
from service.pool import Pool
from service.settings import Settings

Served = TensorModel | Engine


class Catalog:
    """Served models by tag. Enter it as a context on the event loop that will use it."""

    def __init__(self, models: Iterable[TensorModel | TextModel], settings: Settings) -> None:
        self.pool = Pool(settings.threads or available_cores(), settings.queue)
        self._models: dict[str, Served] = {}
        self._started = False
        for model in models:
            tag = model.manifest.tag
            if tag in self._models:
                raise BundleError(f"two bundles are called '{tag}'; name one of them only")
            self._models[tag] = _served(model, settings)

    @classmethod
    def load(cls, bundles: Iterable[Bundle], settings: Settings) -> "Catalog":
        """Load every bundle. Raises GraphError for a graph that onnxruntime refuses."""
        return cls((_load(bundle, settings.threads) for bundle in bundles), settings)

    @property
    def manifests(self) -> list[Manifest]:
        """What is served, in the order it was named."""
        return [model.manifest for model in self._models.values()]

    @property
    def ready(self) -> bool:
        """Whether every model can answer: the one truth behind all readiness probes."""
        return self._started and not any(engine.failed for engine in self._engines())

    def find(self, name: str, version: str | None = None) -> Served:
        """The model called `name` (or `name:version`). Raises UnknownModel with the nearest name."""
        tag, _, tagged = name.partition(":")
        wanted = version or tagged
        if tag not in self._models:
            raise UnknownModel(f"no model '{name}' is served: {nearest(tag, self._models)}")
        model = self._models[tag]
        if wanted and wanted != model.manifest.version:
            raise UnknownModel(f"version '{wanted}' of '{tag}' is not served: {model.manifest.version} is")
        return model

    def tensor(self, name: str, version: str | None = None) -> TensorModel:
        """The feed-forward model of that name. Raises InputError for one that generates text."""
        model = self.find(name, version)
        if isinstance(model, Engine):
            raise InputError(f"'{name}' generates text; ask it by POST /v1/completions")
        return model

    def text(self, name: str) -> Engine:
        """The text model of that name. Raises InputError for one that does not generate."""
        model = self.find(name)
        if isinstance(model, TensorModel):
            raise InputError(f"'{name}' does not generate text; ask it by POST /predict/{name}")
        return model

    async def __aenter__(self) -> "Catalog":
        for engine in self._engines():
            engine.start()
        self._started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._started = False
        for engine in self._engines():
            await engine.stop()
        self.pool.close()

    def _engines(self) -> list[Engine]:
        return [model for model in self._models.values() if isinstance(model, Engine)]


def _load(bundle: Bundle, threads: int | None) -> TensorModel | TextModel:
    started = perf_counter()
    model = load_model(bundle, threads=threads)
    metrics.MODEL_LOAD_SECONDS.labels(bundle.manifest.tag).set(perf_counter() - started)
    return model


def _served(model: TensorModel | TextModel, settings: Settings) -> Served:
    if isinstance(model, TensorModel):
        return model
    return Engine(model, slots=settings.slots, queue_size=settings.queue)
