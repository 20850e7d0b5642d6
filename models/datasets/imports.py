"""Which package of the standard library a module belongs to, by the words of its text and what imports what.

One graph: a node for each module, an edge each way where one imports the other. The classes are the largest
packages; the other modules have no label, but they are there. A node's features are the words of its text,
without those of its own path and without its import statements, which would give the package away. Half of
each class is held out. The trade-offs: statements are found line by line, so that an example in a docstring
counts; and the graph is that of the running interpreter, which the fingerprint says.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from models.datasets.dataset import IGNORED, Array, Dataset, Split, SplitName, View
from models.datasets.library import library_files, library_root
from models.errors import DataError
from models.storage import code_digest, digest
from runtime.manifest import GraphProcessing

CLASSES, WORDS = 10, 512
# A word of nearly every module tells nothing, and one of a few modules only of those.
LEAST_MODULES, MOST_SHARE = 4, 0.5
_MODULES = (__name__, "models.datasets.library")
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<base>[\w.]+)[ \t]+import[ \t]+(?P<names>\([^)]*\)|.+)"
    r"|import[ \t]+(?P<whole>.+))",
    re.MULTILINE,
)
# snake_case and camelCase alike come apart into words of three letters and more.
_WORD = re.compile(r"[A-Z]{3,}(?![a-z])|[A-Z]?[a-z]{2,}[a-z]?")


@cache
def fingerprint() -> str:
    """sha256 over the library's source, and the code that reads it."""
    return digest(*(path.read_bytes() for path in library_files()), code_digest(_MODULES))


def open_dataset(view: View) -> Dataset:
    """The graph. Raises DataError for a model that does not take graphs."""
    processing = view.processing or GraphProcessing(width=WORDS)
    if not isinstance(processing, GraphProcessing):
        raise DataError(
            "data set 'imports' holds a graph, and this model does not take graphs; choose another"
        )

    def load(split: SplitName) -> Split:
        graph, targets = _graph(), _targets()[split]
        return Split({name: tensor[None] for name, tensor in graph.items()}, targets[None], [graph])

    return Dataset("imports", "node-classification", fingerprint(), packages(), processing, load)


def modules() -> tuple[str, ...]:
    """The names of the nodes, in order."""
    return tuple(map(_name, library_files()))


@cache
def packages() -> tuple[str, ...]:
    """The packages with most modules, in alphabetical order."""
    sizes = Counter(_package(module) for module in modules() if "." in module)
    return tuple(sorted(sorted(sizes, key=lambda name: (-sizes[name], name))[:CLASSES]))


@cache
def _targets() -> dict[SplitName, Array]:
    """Every second module of a class is held out, in the order of a hash of its name."""
    names = modules()
    splits: tuple[SplitName, SplitName] = ("train", "validation")
    targets: dict[SplitName, Array] = {split: np.full(len(names), IGNORED, np.int64) for split in splits}
    for label, package in enumerate(packages()):
        own = [row for row, module in enumerate(names) if _package(module) == package]
        own.sort(key=lambda row: digest(names[row]))
        for side, split in enumerate(splits):
            targets[split][own[side::2]] = label
    return targets


@cache
def _graph() -> dict[str, Array]:
    """features float32 [modules, WORDS] and edges int64 [edges, 2]."""
    texts = [path.read_text("utf-8", errors="replace") for path in library_files()]
    numbers = {module: row for row, module in enumerate(modules())}
    pairs = {
        (row, numbers[other])
        for row, (module, text) in enumerate(zip(numbers, texts, strict=True))
        for other in imported(module, text, numbers)
        if other != module
    }
    both = sorted(pairs | {(target, source) for source, target in pairs})
    return {"features": _features(texts), "edges": np.array(both, np.int64)}


def imported(module: str, text: str, known: Collection[str]) -> Iterator[str]:
    """The modules of `known` that the text of `module` imports, wherever in it."""
    for statement in _IMPORT.finditer(text):
        if statement["whole"]:
            names = (part.split()[0] for part in statement["whole"].split(",") if part.strip())
            yield from (name for name in names if name in known)
            continue
        base = _resolved(module, statement["base"], known)
        # `from package import module` names a module, `from module import function` does not.
        for name in re.findall(r"\w+", statement["names"]):
            inner = f"{base}.{name}".lstrip(".")
            if inner in known or base in known:
                yield inner if inner in known else base


def _resolved(module: str, base: str, known: Collection[str]) -> str:
    """What a `from` names, its leading dots resolved."""
    name = base.lstrip(".")
    if not (dots := len(base) - len(name)):
        return base
    is_package = any(each.startswith(f"{module}.") for each in known)
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - dots + is_package], *([name] if name else [])])


def _features(texts: list[str]) -> Array:
    """Which of the WORDS each module uses, as shares of its words."""
    used = [words(module, text) for module, text in zip(modules(), texts, strict=True)]
    counts = Counter(word for each in used for word in each)
    telling = [word for word, count in counts.items() if LEAST_MODULES <= count <= MOST_SHARE * len(used)]
    chosen = sorted(telling, key=lambda word: (-counts[word], word))[:WORDS]
    features = np.array([[word in each for word in chosen] for each in used], np.float32)
    return np.asarray(features / np.maximum(features.sum(1, keepdims=True), 1))


def words(module: str, text: str) -> set[str]:
    """The words of a module's text, but for those of its import statements and of its own path."""
    own = _lowered(module)
    return _lowered(_IMPORT.sub("", text)) - own


def _lowered(text: str) -> set[str]:
    return {word.lower() for word in set(_WORD.findall(text))}


def _name(path: Path) -> str:
    parts = path.relative_to(library_root()).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package(module: str) -> str:
    return module.partition(".")[0]
