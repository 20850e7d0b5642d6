"""LoRA adapters while serving: which model and adapter a request means, and which files may become one.

A request never opens a path of its own choosing. It names an adapter that came with the model's bundle, or a
file by its path within one folder, the operator's; what leads out of that folder is refused before it is
looked at, and so is a link that does. What is loaded is loaded over the version that is served now, in this
process: another version, or another worker, must be told again.
"""

import os
from pathlib import Path

from runtime.errors import AdapterError
from service.catalog import Catalog
from service.engine import Engine
from service.errors import Conflict, InvalidRequest, UnknownAdapter


def choose(catalog: Catalog, model: str, adapter: str | None = None) -> tuple[Engine, str | None]:
    """The text model that `model` means, and the adapter to run it with.

    `model` may be an adapter's own name. Raises UnknownModel, UnknownAdapter, or InvalidRequest where several
    models have an adapter of that name, or the model generates no text.
    """
    if adapter is None and not is_model(catalog, model) and (bases := owners(catalog, model)):
        if len(bases) > 1:
            tags = ", ".join(base.manifest.tag for base in bases)
            raise InvalidRequest(
                f"'{model}' is an adapter of {tags}; send one of them as 'model', and 'adapter' beside it",
                "model",
            )
        return catalog.text(bases[0].manifest.tag), model
    engine = catalog.text(model)
    if adapter is not None and adapter not in engine.model.adapters.names:
        raise UnknownAdapter(f"{engine.manifest.tag} has no adapter '{adapter}'; GET /v1/models lists them")
    return engine, adapter


def is_model(catalog: Catalog, name: str) -> bool:
    """Whether a model or an alias has this name."""
    return name.partition(":")[0] in catalog.entries or name in catalog.aliases


def owners(catalog: Catalog, adapter: str) -> list[Engine]:
    """The models that have an adapter of this name."""
    return [engine for engine in _engines(catalog) if adapter in engine.model.adapters.names]


def base_of(catalog: Catalog, model: str | None) -> Engine:
    """The text model to load over: the one named, or the only one that takes adapters."""
    if model is not None:
        return catalog.text(model)
    found = [engine for engine in _engines(catalog) if engine.model.graph.adapters]
    if len(found) != 1:
        which = ", ".join(engine.manifest.tag for engine in found) or "none"
        raise InvalidRequest(f"models that take adapters: {which}; name one as 'model'", "model")
    return found[0]


async def load(catalog: Catalog, engine: Engine, name: str, given: str, *, replace: bool) -> None:
    """Let requests name the adapter at `given`.

    Raises Conflict for a name that is taken, InvalidRequest for a path or a file that does not do.
    """
    if is_model(catalog, name):
        raise Conflict(f"'{name}' is a model already; choose another name for the adapter")
    if name in engine.model.adapters.names and not replace:
        raise Conflict(f"adapter '{name}' is loaded already; send 'load_inplace': true to replace it")
    path = _file(engine, catalog.settings.adapters, given)
    try:
        await catalog.pool.run(engine.model.adapters.load, name, path)
    except AdapterError as error:
        raise InvalidRequest(str(error).replace(str(path), given), "lora_path") from None


def unload(engine: Engine, name: str) -> None:
    """Let no further request name an adapter. Raises UnknownAdapter."""
    try:
        engine.model.adapters.unload(name)
    except AdapterError as error:
        raise UnknownAdapter(str(error)) from None


def _engines(catalog: Catalog) -> list[Engine]:
    return [entry.current for entry in catalog.entries.values() if isinstance(entry.current, Engine)]


def _file(engine: Engine, folder: Path | None, given: str) -> Path:
    """The file that `given` means. Raises InvalidRequest for one that is not the operator's to give."""
    own = engine.model.graph.adapters.files if engine.model.graph.adapters else {}
    if given in own:
        return engine.model.bundle.file(own[given])
    if folder is None:
        raise InvalidRequest(
            "lora_path: send the name of one of the bundle's own adapters; others need MODELPRESS_ADAPTERS",
            "lora_path",
        )
    root = folder.resolve()
    if "\0" in given or not Path(os.path.normpath(root / given)).is_relative_to(root):
        raise _outside(given)
    try:
        path = (root / given).resolve(strict=True)
    except (OSError, RuntimeError):
        raise InvalidRequest(f"lora_path: no file '{given}' in the folder of adapters", "lora_path") from None
    if not path.is_relative_to(root):
        raise _outside(given)
    return path


def _outside(given: str) -> InvalidRequest:
    return InvalidRequest(
        f"lora_path: '{given}' leaves the folder of adapters; send a path inside it", "lora_path"
    )
