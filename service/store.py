"""Finding bundles: plain folders, and BentoML's model store.

It opens and checks bundles and loads nothing. In the store a bundle is a model of module `modelpress`
whose tag is the manifest's tag and version. BentoML is imported only where its store is asked, because
that takes a second and a folder does not need it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from runtime.bundle import MANIFEST, Bundle
from runtime.errors import BundleDamaged, BundleNotFound
from runtime.suggest import nearest

MODULE = "modelpress"


def find_all(references: Sequence[str]) -> list[Bundle]:
    """The bundles at `references`, checked; without any, the newest version of each one in the store."""
    return [find(reference) for reference in references or newest_tags()]


def find(reference: str) -> Bundle:
    """The bundle at a folder, or with a tag `name-variant[:version]`, every file checked.

    Raises BundleNotFound with the nearest name, or BundleDamaged.
    """
    return Bundle.open(reference) if is_folder(reference) else Bundle.open(_stored(reference))


def is_folder(reference: str) -> bool:
    """Whether a reference means a folder: it is written as a path, or a bundle stands there."""
    return os.sep in reference or (Path(reference) / MANIFEST).is_file()


def is_stored(folder: str, tag: str) -> bool:
    """Whether a bundle's folder is the model store's, which may hold other versions of `tag`."""
    path = Path(folder).resolve()
    # The store's folders are called so: what is somewhere else need not wait for BentoML.
    if path.parent.name != tag:
        return False
    from bentoml._internal.configuration.containers import BentoMLContainer

    return path.is_relative_to(Path(BentoMLContainer.model_store_dir.get()).resolve())


def newest_tags() -> list[str]:
    """Tags of the bundles in BentoML's model store, the newest version of each name, by name.

    Raises BundleDamaged where there is half of a model in it, whoever's.
    """
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        models = [model for model in bentoml.models.list() if model.info.module == MODULE]
    except BentoMLException as error:
        raise BundleDamaged(
            f"the model store cannot be listed: {error}; `modelpress list` says what to remove"
        ) from None
    models.sort(key=lambda model: model.creation_time)
    return sorted({model.tag.name: str(model.tag) for model in models}.values())


def _stored(tag: str) -> Path:
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        return Path(bentoml.models.get(tag).path)
    except (BentoMLException, ValueError):
        names = [known.partition(":")[0] for known in newest_tags()]
        raise BundleNotFound(
            f"no bundle '{tag}' in the model store: {nearest(tag.partition(':')[0], names)}"
        ) from None
