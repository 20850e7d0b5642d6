"""The models being served: by name, version and alias; loaded, replaced and unloaded while requests come.

A replacement is loaded and tried before any request sees it, then takes over from one request to the next.
What it replaced stays until the new one has proved itself, and comes back if it breaks. What is unloaded is
stopped after the last request that may have found it. It does not find bundles (`store.py`) and knows no
dialect.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from runtime.bundle import Bundle
from runtime.errors import BundleError, BundleNotFound, InputError
from runtime.manifest import Manifest
from runtime.model import TextModel
from runtime.session import available_cores
from runtime.suggest import nearest
from runtime.tensor import TensorModel
from service import context, heartbeat, metrics, served, shadow, store
from service.alias import Alias, choose, read_aliases
from service.batcher import Batcher
from service.engine import Engine
from service.errors import InvalidRequest, ModelFailed, ServiceError, UnknownModel
from service.pool import Pool
from service.served import Served
from service.settings import Settings
from service.traffic import Traffic

logger = logging.getLogger("modelpress.service")

# Answers that a replacement must give before what it replaced is let go.
PROBATION = 20


@dataclass(slots=True)
class Entry:
    """One name: what answers, where it was found, what it replaced, and versions that stand beside it."""

    current: Served
    reference: str
    previous: Served | None = None
    beside: dict[str, Served] = field(default_factory=dict)

    @property
    def models(self) -> list[Served]:
        """Every version that is loaded, the current one first."""
        every = [self.current, *([self.previous] if self.previous else ()), *self.beside.values()]
        # What a replacement may go back to may have been asked to stand beside it as well.
        return list(dict.fromkeys(every))

    @property
    def offered(self) -> list[Manifest]:
        """The versions that may be asked for and are here to stay, the current one first."""
        return [model.manifest for model in (self.current, *self.beside.values())]

    def loaded(self, version: str) -> Served | None:
        """That version, if it is loaded."""
        return next((model for model in self.models if model.manifest.version == version), None)


@dataclass(frozen=True, slots=True)
class Unloaded:
    """What was served from a folder: no store remembers it, and it may be loaded again."""

    folder: str
    version: str


class Catalog:
    """Served models. Enter it as a context on the event loop that will use it."""

    def __init__(
        self,
        models: Iterable[TensorModel | TextModel],
        settings: Settings,
        traffic: Traffic | None = None,
    ) -> None:
        self.settings = settings
        # An idle one is empty, and so is false.
        self.traffic = Traffic() if traffic is None else traffic
        self.pool = Pool(settings.threads or available_cores(), settings.queue)
        self.aliases: dict[str, Alias] = {}
        self.unloaded: dict[str, Unloaded] = {}
        self._entries: dict[str, Entry] = {}
        # Told the tag and version of a model that broke here and was taken out.
        self.on_rollback: Callable[[str, str], None] | None = None
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()
        # Nobody can find them any more, and they still answer whoever has.
        self._leaving: set[Served] = set()
        for model in models:
            tag = model.manifest.tag
            if tag in self._entries:
                raise BundleError(f"two bundles are called '{tag}'; name one of them only")
            self._entries[tag] = Entry(self._serve(model), _reference(model))
        for name, alias in read_aliases(settings.aliases).items():
            self.set_alias(name, alias)

    @classmethod
    def open(cls, bundles: Iterable[Bundle], settings: Settings, traffic: Traffic | None = None) -> "Catalog":
        """Load every bundle. Raises GraphError for a graph that onnxruntime refuses."""
        return cls((served.load(bundle, settings) for bundle in bundles), settings, traffic)

    @property
    def entries(self) -> dict[str, Entry]:
        """Everything by name, in the order it was named."""
        return self._entries

    @property
    def manifests(self) -> list[Manifest]:
        """What is served, in the order it was named."""
        return [entry.current.manifest for entry in self._entries.values()]

    @property
    def ready(self) -> bool:
        """Whether every model can answer: the one truth behind all readiness probes."""
        if not self._started or self.traffic.draining:
            return False
        return not any(
            engine.failed or engine.stuck_for() > self.settings.stall for engine in self._engines()
        )

    def find(self, name: str, version: str | None = None) -> Served:
        """What answers to `name`, `name:version` or an alias. Raises UnknownModel with the nearest name."""
        tag, _, tagged = name.partition(":")
        wanted = version or tagged
        alias = None if wanted else self.aliases.get(tag)
        found = self._resolve(tag, alias) if alias else self._lookup(tag, wanted)
        if request := context.current():
            request.manifest = found.manifest
            other = self._shadow(alias, found)
            request.shadow = other if isinstance(other, Batcher) else None
            request.text_shadow = other if isinstance(other, Engine) else None
        return found

    def tensor(self, name: str, version: str | None = None) -> Batcher:
        """The feed-forward model of that name. Raises InputError for one that generates text."""
        model = self.find(name, version)
        if isinstance(model, Engine):
            raise InputError(f"'{name}' generates text; ask it by POST /predict/{name} or /v1/completions")
        return model

    def text(self, name: str) -> Engine:
        """The text model of that name. Raises InputError for one that does not generate."""
        model = self.find(name)
        if isinstance(model, Batcher):
            raise InputError(f"'{name}' does not generate text; ask it by POST /predict/{name}")
        return model

    def first_of(self, alias: Alias) -> Served | None:
        """What an alias stands for first, without drawing; None where nothing of that name is served now."""
        with suppress(UnknownModel):
            return self._named(alias.targets[0].model)
        return None

    async def load(self, name: str, *, take_over: bool = True) -> Manifest:
        """Load a bundle of the store by its `tag` or `tag:version`, or again what is served from a folder.

        It takes over from the version that is served, or stands beside it, for an alias to choose. What is
        loaded already is not loaded again. Raises BundleNotFound, BundleDamaged, GraphError, ModelFailed, or
        InvalidRequest for what is no tag, and then nothing has changed. `Journal` makes one change at a time.
        """
        tag, _, version = name.partition(":")
        entry = self._entries.get(tag)
        if tag in self.aliases:
            raise InvalidRequest(f"'{tag}' is an alias; delete it first, or load what it names", "name")
        model = entry.loaded(version) if entry else None
        if model is None:
            bundle = await asyncio.to_thread(_bundle, name, self._reference_of(tag))
            model = entry.loaded(bundle.manifest.version) if entry else None
            model = model or await self._open(bundle)
        self._install(model, self._reference_of(tag) or name, take_over=take_over)
        self.unloaded.pop(tag, None)
        return model.manifest

    async def unload(self, name: str) -> None:
        """Serve a name, or one version of it, no more. Raises UnknownModel.

        Requests that have found it are finished. The version that is current goes only with its name.
        """
        tag, _, version = name.partition(":")
        model, entry = self._lookup(tag, version), self._entries[tag]
        if version and model is entry.current:
            raise InvalidRequest(f"'{name}' is what '{tag}' means; load another version first", "name")
        if version:
            entry.beside.pop(version, None)
            entry.previous = None if entry.previous is model else entry.previous
        else:
            del self._entries[tag]
            metrics.MODEL_BYTES.labels(tag).set(0)
            if store.is_folder(entry.reference) and not store.is_stored(entry.reference, tag):
                self.unloaded[tag] = Unloaded(entry.reference, model.manifest.version)
        for each in [model] if version else entry.models:
            self._retire(each)

    def set_alias(self, name: str, alias: Alias) -> None:
        """Let `name` stand for models. Raises UnknownModel, or InvalidRequest where it is taken."""
        if name in self._entries or not name or ":" in name or "/" in name:
            raise InvalidRequest(f"'{name}' cannot be an alias: it is a model's name, or no name", "name")
        for model in alias.models:
            self._named(model)
        self.aliases[name] = alias

    def drop_alias(self, name: str) -> None:
        """Let `name` stand for nothing. Raises UnknownModel."""
        if self.aliases.pop(name, None) is None:
            raise UnknownModel(f"no alias is called '{name}'")

    def roll_back(self, name: str) -> None:
        """Take out a `tag:version` that broke elsewhere. Nothing happens where it is not served.

        Raises InvalidRequest where nothing is left to go back to.
        """
        tag, _, version = name.partition(":")
        entry = self._entries.get(tag)
        for model in entry.models if entry else ():
            if entry and model.manifest.version == version and not self._take_out(entry, model):
                raise InvalidRequest(f"'{name}' has replaced what was before it for good", "name")

    def cut_off(self) -> None:
        """End every text that is being written, because the server stops: whoever reads it is told so."""
        for model in (*self._all(), *self._leaving):
            if isinstance(model, Engine):
                model.cut_off()

    async def __aenter__(self) -> "Catalog":
        for model in self._all():
            model.start()
        self._spawn(heartbeat.watch(self._all, self.settings.stall))
        metrics.WORKERS.set(1)
        self._started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._started = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in (*self._all(), *self._leaving):
            await model.stop()
        self.pool.close()

    def _serve(self, model: TensorModel | TextModel) -> Served:
        return served.serve(model, self.pool, self.traffic, self.settings)

    async def _open(self, bundle: Bundle) -> Served:
        """Load a bundle, and have it answer once. Raises what says why it does not."""
        fresh = await asyncio.to_thread(lambda: self._serve(served.load(bundle, self.settings)))
        fresh.start()
        if isinstance(fresh, Engine):
            try:
                await fresh.try_out(self.settings.timeout)
            except ModelFailed:
                await fresh.stop()
                raise
        return fresh

    def _reference_of(self, tag: str) -> str:
        """Where a name was found when it was named first; nothing for one that never was served."""
        if entry := self._entries.get(tag):
            return entry.reference
        return self.unloaded[tag].folder if tag in self.unloaded else ""

    def _install(self, model: Served, reference: str, *, take_over: bool) -> None:
        """Let a loaded model answer to its name, or stand beside the one that does."""
        manifest = model.manifest
        entry = self._entries.get(manifest.tag)
        if entry is None:
            entry = self._entries[manifest.tag] = Entry(model, reference)
        elif take_over and model is not entry.current:
            entry.beside.pop(manifest.version, None)
            if entry.previous is not model:
                self._drop_previous(entry)
            entry.previous, entry.current = entry.current, model
        elif model is not entry.current:
            entry.beside[manifest.version] = model
        model.health.on_change = lambda: self._judge(entry, model)

    def _judge(self, entry: Entry, model: Served) -> None:
        """After each answer of a model that came while others served: keep it, go back, or wait for more."""
        if model.health.broken:
            if self._take_out(entry, model):
                manifest = model.manifest
                metrics.ROLLBACKS.labels(manifest.tag).inc()
                if self.on_rollback:
                    self.on_rollback(manifest.tag, manifest.version)
        elif entry.previous and entry.current is model and model.health.successes >= PROBATION:
            self._drop_previous(entry)

    def _drop_previous(self, entry: Entry) -> None:
        """Go back no more to what was replaced; it stops, unless it stands beside."""
        old, entry.previous = entry.previous, None
        if old and old not in entry.models:
            self._retire(old)

    def _take_out(self, entry: Entry, model: Served) -> bool:
        """Serve a broken model no more; False where nothing could answer in its place."""
        tag, version = model.manifest.tag, model.manifest.version
        if entry.current is model and entry.previous:
            logger.error("%s:%s is broken; back to the version before", tag, version)
            entry.current, entry.previous = entry.previous, None
            entry.beside.pop(entry.current.manifest.version, None)
        elif entry.previous is model:
            logger.error("%s:%s is broken; no way back to it", tag, version)
            entry.previous = None
            entry.beside.pop(version, None)
        elif entry.beside.pop(version, None):
            logger.error("%s:%s is broken and no longer chosen", tag, version)
        else:
            return False
        self._retire(model)
        return True

    def _retire(self, model: Served) -> None:
        """Stop a model that nobody can find any more, after the requests that may have found it."""

        async def stop() -> None:
            await self.traffic.settled()
            await model.stop()
            self._leaving.discard(model)
            # Else the two would keep each other, and the session its threads, until the collector comes.
            model.health.on_change = None

        self._leaving.add(model)
        self._spawn(stop())

    def _resolve(self, name: str, alias: Alias) -> Served:
        chosen = self._named(choose(alias.targets, self._is_usable))
        fallback = alias.fallback
        if fallback and chosen.pressure > fallback.above and self._is_usable(fallback.model):
            metrics.FALLBACKS.labels(name).inc()
            return self._named(fallback.model)
        return chosen

    def _is_usable(self, model: str) -> bool:
        try:
            return not self._named(model).health.broken
        except ServiceError:
            return False

    def _shadow(self, alias: Alias | None, found: Served) -> Served | None:
        if alias is None or alias.shadow is None or not shadow.is_drawn(alias.shadow.share):
            return None
        with suppress(ServiceError):
            other = self._named(alias.shadow.model)
            return other if type(other) is type(found) and other is not found else None
        return None

    def _named(self, name: str) -> Served:
        tag, _, version = name.partition(":")
        return self._lookup(tag, version)

    def _lookup(self, tag: str, version: str | None) -> Served:
        entry = self._entries.get(tag)
        if entry is None:
            known = nearest(tag, [*self._entries, *self.aliases])
            raise UnknownModel(f"no model '{tag}' is served: {known}")
        if model := entry.loaded(version) if version else entry.current:
            return model
        loaded = ", ".join(model.manifest.version for model in entry.models)
        raise UnknownModel(f"version '{version}' of '{tag}' is not served: {loaded} is")

    def _all(self) -> list[Served]:
        return [model for entry in self._entries.values() for model in entry.models]

    def _engines(self) -> list[Engine]:
        return [model for model in self._all() if isinstance(model, Engine)]

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bundle(name: str, reference: str) -> Bundle:
    """What a name means now: a bundle of the store, or the one in the folder that it was served from."""
    folder = reference if reference and store.is_folder(reference) else ""
    if not folder and store.is_folder(name):
        raise InvalidRequest(f"'{name}' is no tag; folders are named when the server starts", "name")
    tag, _, version = name.partition(":")
    if not folder or store.is_stored(folder, tag):
        return store.find(name)
    bundle = store.find(folder)
    found = bundle.manifest
    if found.tag != tag or version not in ("", found.version):
        raise BundleNotFound(
            f"'{tag}' is served from a folder, which holds '{found.tag}:{found.version}' and not '{name}'"
        )
    return bundle


def _reference(model: TensorModel | TextModel) -> str:
    bundle = getattr(model, "bundle", None)
    return str(bundle.path) if bundle else model.manifest.tag
