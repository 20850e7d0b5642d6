"""From what a function of the standard library says it does to the words of its name.

A source is the first paragraph of a docstring, an answer the words of a name in snake case: "Return the size
of a file" to "getsize". Whole files are held out. Names that their docstring spells out, names of other
spelling, and texts that the training files have too are left out; classes are learnt from and not asked for.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import answer_split, reads_sources
from models.datasets.library import hashed, library_files
from models.datasets.subwords import PROCESSING, tokenizer_file
from models.storage import code_digest, digest, home, versions

# As in `stdlib`: about 50 files, and no file ever changes sides.
HELD_OUT_EVERY = 11
VOCABULARY = 3000
# A first paragraph is cut to so many words: nine in ten are shorter.
WORDS = 24
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MODULES = (__name__, "models.datasets.library", "models.datasets.subwords")

Pairs = list[tuple[str, str]]


@cache
def fingerprint() -> str:
    """sha256 over the pairs, and the code and library that find and tokenize them."""
    rows = (f"{source}\t{answer}" for pairs in _splits().values() for source, answer in pairs)
    return digest(*rows, code_digest(_MODULES), repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """The pairs in `view`'s tokens, or their own. Raises DataError for a model that reads no source."""
    processing = reads_sources("docstrings", view.processing or PROCESSING)
    tokenizer = view.tokenizer or _own_tokenizer()

    def load(split: SplitName) -> Split:
        return answer_split(_splits()[split], processing, tokenizer, view.window)

    return Dataset(
        *("docstrings", "text2text-generation", fingerprint(), (), processing, load),
        files={"tokenizer.json": tokenizer},
        metric="rouge-l",
    )


def _own_tokenizer() -> Path:
    path = home() / "data" / f"docstrings-{fingerprint()[:12]}" / "tokenizer.json"
    texts = (text for pair in _splits()["train"] for text in pair)
    return tokenizer_file(path, texts, VOCABULARY, lowercase=True)


@cache
def _splits() -> dict[SplitName, Pairs]:
    """Both splits, each pair once."""
    train: Pairs = []
    validation: Pairs = []
    for path in library_files():
        held_out = hashed(path) % HELD_OUT_EVERY == 0
        found = _pairs(path, classes=not held_out)
        (validation if held_out else train).extend(found)
    learnt = {source for source, _ in train}
    kept = (pair for pair in validation if pair[0] not in learnt)
    return {"train": list(dict.fromkeys(train)), "validation": list(dict.fromkeys(kept))}


def _pairs(path: Path, classes: bool) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8", errors="replace"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name, documented = _words(node), ast.get_docstring(node)
        if documented and name and (classes or not isinstance(node, ast.ClassDef)):
            source = " ".join(documented.partition("\n\n")[0].split()[:WORDS])
            if source and not _says(source, node.name.strip("_")):
                yield source, name


def _words(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """The words of a name, space between them; nothing for `__init__` and other spellings."""
    name = "" if node.name.startswith("__") else node.name.strip("_")
    if isinstance(node, ast.ClassDef):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return name.replace("_", " ") if _SNAKE.fullmatch(name) else ""


def _says(source: str, name: str) -> bool:
    """Whether a text spells a name out: as a call, or where it is of several words."""
    return f"{name}(" in source or (not (name.isalpha() and name.islower()) and name in source)
