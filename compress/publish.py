"""Bundles into BentoML's model store, where `modelpress serve` and `bentoml models` find them.

BentoML copies into its store file by file, and takes no model that is there already; so it is given a store
of its own, and what it made is renamed into the real one. What is published is whole, or what it was before.
One process publishes at a time, so whatever lies around of another one is what a kill has left.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compress.errors import OutputError, RecipeError
from runtime.bundle import MANIFEST, Bundle, replace_folder, write_bundle
from runtime.errors import BundleDamaged, BundleError, BundleNotFound
from runtime.suggest import nearest

# The service asks the store for models of this module.
MODULE = "modelpress"
# What is being published, until it is whole.
STAGING = ".publishing-"
# BentoML takes no longer names.
TAG_LENGTH = 63


def export_folder(measured: Bundle, target: Path) -> Bundle:
    """Write `measured` as a plain folder at `target`, replacing a bundle that stands there.

    Raises OutputError where something else does: it is not ours to remove.
    """
    if target.exists() and not _is_bundle(target):
        raise OutputError(f"{target}: stands there and is no bundle; move it away, or choose another --out")
    return write_bundle(target, measured.manifest, _sources(measured))


def check_tag(tag: str) -> None:
    """Raises RecipeError for a tag `name-variant` that the store would refuse, once all the work is done."""
    if len(tag) > TAG_LENGTH:
        raise RecipeError(
            f"'{tag}' has {len(tag)} characters, and a model store takes {TAG_LENGTH}; "
            "give a shorter 'name' or 'variant' in the recipe"
        )


def check_folder(out: Path) -> None:
    """Raises OutputError for a place where no folder can be: said before hours of work, not after.

    It is tried, because permissions do not tell all: of /proc, nor to a superuser.
    """
    nearest_there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not nearest_there.is_dir():
        raise OutputError(f"{nearest_there}: a file; --out names the folder to write into")
    try:
        with tempfile.TemporaryDirectory(prefix=".modelpress-", dir=nearest_there):
            pass
    except OSError:
        raise OutputError(f"{nearest_there}: cannot be written to; choose another --out") from None


def publish(measured: Bundle) -> tuple[str, Bundle]:
    """Put `measured` into the model store; its tag `name-variant:version`, and the stored bundle.

    The same content published again replaces what is there: the evidence may be newer.
    """
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models.model import ModelStore

    store = Path(BentoMLContainer.model_store_dir.get())
    with _alone(store.parent), tempfile.TemporaryDirectory(prefix=STAGING, dir=store.parent) as folder:
        bundle = write_bundle(Path(folder) / "bundle", measured.manifest, _sources(measured))
        manifest = bundle.manifest
        tag = f"{manifest.tag}:{manifest.version}"
        labels = {"task": manifest.task, "variant": manifest.variant}
        own = ModelStore(Path(folder) / "models")
        with bentoml.models.create(tag, module=MODULE, labels=labels, _model_store=own) as model:
            shutil.copytree(bundle.path, model.path, dirs_exist_ok=True)
        made = Path(own.get(tag).path)
        replace_folder(store / made.relative_to(Path(folder) / "models"), made)
    (store / manifest.tag / "latest").write_text(manifest.version)
    return tag, Bundle.open(bentoml.models.get(tag).path)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Publish into `home` while no other process does, and without what those that were killed left there."""
    # The lock goes with its holder, however that ends; its file stays, or two could hold one of each.
    with (home / ".publishing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in home.glob(f"{STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def published() -> Iterator[Bundle]:
    """Every bundle in the model store, newest first; their files are not checked."""
    for _, path in _stored():
        with suppress(BundleError):
            yield Bundle.open(path, verify=False)


def newest() -> list[Bundle]:
    """The newest version of each published bundle, by tag."""
    latest: dict[str, Bundle] = {}
    for bundle in published():
        latest.setdefault(bundle.manifest.tag, bundle)
    return [latest[tag] for tag in sorted(latest)]


def find(reference: str) -> Bundle:
    """The bundle in a folder, or published as `name-variant[:version]`, the newest.

    Raises BundleNotFound where there is none, BundleDamaged for one that is not what was published.
    """
    if (Path(reference) / MANIFEST).is_file():
        return Bundle.open(reference)
    tag, _, version = reference.partition(":")
    stored = list(_stored())
    for (name, its_version), path in stored:
        if name == tag and its_version.startswith(version):
            return Bundle.open(path)
    known = [name for (name, _), _ in stored]
    raise BundleNotFound(f"no bundle '{reference}', neither a folder nor published; {nearest(tag, known)}")


def _stored() -> Iterator[tuple[tuple[str, str], Path]]:
    """Name, version and folder of every bundle in the model store, newest first. Raises BundleDamaged."""
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        models = [model for model in bentoml.models.list() if model.info.module == MODULE]
    except BentoMLException as error:
        raise BundleDamaged(f"the model store cannot be listed: {error}; {_half_models()}") from None
    for model in sorted(models, key=lambda model: model.creation_time, reverse=True):
        yield (model.tag.name, str(model.tag.version)), Path(model.path)


def _half_models() -> str:
    """Which folders BentoML stumbles over: it copies models in file by file."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    versions = (path for path in Path(BentoMLContainer.model_store_dir.get()).glob("*/*") if path.is_dir())
    half = [str(path) for path in sorted(versions) if not (path / "model.yaml").is_file()]
    return f"remove {', '.join(half) or 'the model that it names'}"


def _is_bundle(folder: Path) -> bool:
    try:
        Bundle.open(folder, verify=False)
    except BundleError:
        return folder.is_dir() and not any(folder.iterdir())
    return True


def _sources(bundle: Bundle) -> dict[str, Path]:
    return {name: bundle.path / name for name in bundle.manifest.files}
