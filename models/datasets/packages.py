"""Which package of the standard library a snippet of code comes from: ten classes, equally many of each.

The classes are the ten largest packages with at least five files. A file's snippets are all on one side of
the split, so that what is learnt is a package's manner and vocabulary, not its files. The trade-off: the
classes and texts are those of the running interpreter, and the fingerprint says which.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import text_split
from models.datasets.library import hashed, library_files, library_root
from models.datasets.wordpieces import PAD_ID, tokenizer_file
from models.errors import DataError
from models.storage import code_digest, digest, home, versions
from runtime.manifest import TextProcessing

CLASSES, LEAST_FILES = 10, 5
# A snippet is whole lines of about this many characters, some 80 tokens.
CHARACTERS = 280
HELD_OUT = 0.2
PROCESSING = TextProcessing(max_length=96, pad_id=PAD_ID)
_MODULES = (__name__, "models.datasets.library", "models.datasets.wordpieces")

Snippets = list[tuple[str, int]]


@cache
def fingerprint() -> str:
    """sha256 over the snippets, and the code and library that cut and tokenize them."""
    rows = (f"{label} {text}" for split in _splits().values() for text, label in split)
    return digest(*rows, code_digest(_MODULES), repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """The snippets in `view`'s tokens, or their own. Raises DataError for a model that does not read text."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, TextProcessing):
        raise DataError("data set 'packages' holds texts to classify, and this model does not read text")
    tokenizer = view.tokenizer or own_tokenizer()

    def load(split: SplitName) -> Split:
        rows = _splits()[split]
        return text_split([text for text, _ in rows], [label for _, label in rows], processing, tokenizer)

    files = {"tokenizer.json": tokenizer}
    return Dataset("packages", "text-classification", fingerprint(), _packages(), processing, load, files)


def own_tokenizer() -> Path:
    """The tokenizer learnt from the training snippets, which the other code data sets share."""
    path = home() / "data" / f"packages-{fingerprint()[:12]}" / "tokenizer.json"
    return tokenizer_file(path, (text for text, _ in _splits()["train"]))


@cache
def _files() -> dict[str, list[Path]]:
    """The files of each package, ordered by hash, so that no order of names decides what is held out."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in library_files():
        if len(parts := path.relative_to(library_root()).parts) > 1:
            found[parts[0]].append(path)
    large = {name: paths for name, paths in found.items() if len(paths) >= LEAST_FILES}
    chosen = sorted(large, key=lambda name: -sum(path.stat().st_size for path in large[name]))[:CLASSES]
    return {name: sorted(large[name], key=hashed) for name in sorted(chosen)}


def _packages() -> tuple[str, ...]:
    return tuple(_files())


@cache
def _splits() -> dict[SplitName, Snippets]:
    """Both splits: as many snippets a class as the smallest class has, drawn by a fixed seed."""
    sides = [_sides(paths) for paths in _files().values()]
    # Licences and the like stand in several files: what was learnt from is not judged by.
    learnt = {text for train, _ in sides for text in train}
    return {
        "train": _balanced([train for train, _ in sides]),
        "validation": _balanced([[text for text in held if text not in learnt] for _, held in sides]),
    }


def _sides(paths: list[Path]) -> tuple[list[str], list[str]]:
    """A package's snippets to learn from and to judge by: whole files are held out, a fifth of the text."""
    by_file = [list(_snippets(path)) for path in paths]
    wanted, held = HELD_OUT * sum(len(snippets) for snippets in by_file), 0
    train: list[str] = []
    validation: list[str] = []
    for snippets in by_file:
        side = validation if held + len(snippets) <= wanted else train
        side += snippets
        held += len(snippets) if side is validation else 0
    return train, validation


def _snippets(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        lines.append(line)
        if sum(map(len, lines)) >= CHARACTERS:
            yield "\n".join(lines)
            lines = []


def _balanced(classes: list[list[str]]) -> Snippets:
    rng, least = np.random.default_rng(0), min(len(texts) for texts in classes)
    return [
        (texts[row], label)
        for label, texts in enumerate(classes)
        for row in sorted(rng.permutation(len(texts))[:least])
    ]
