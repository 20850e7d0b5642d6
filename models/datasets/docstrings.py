"""From what a function of the standard library says it does to the words of its name.

A source is the first sentence of a docstring, an answer the words of a name in snake case: "Return a copy of
the list" to "copy list". Whole files are held out. Names of other spelling, names that their docstring spells
out, names that share no word with it, and texts that the training files have too are left out; classes are
learnt from and not asked for. Words are all that is read: case and punctuation are dropped, so that a word is
the same token wherever it stands.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tokenizers import Regex, normalizers

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import answer_split, reads_sources
from models.datasets.library import hashed, library_files
from models.datasets.subwords import PROCESSING, tokenizer_file
from models.storage import code_digest, digest, home, versions, write_atomically
from runtime.processing import load_tokenizer

# As in `stdlib`: about 50 files, and no file ever changes sides.
HELD_OUT_EVERY = 11
VOCABULARY = 6144
# A sentence is cut to so many words: nine in ten are shorter.
WORDS = 24
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SENTENCE_END = re.compile(r"(?<=[.;:])\s")
_NO_WORD = r"[\W_]+"
_MODULES = (__name__, "models.datasets.library", "models.datasets.subwords")

Pairs = list[tuple[str, str]]


class Documented(NamedTuple):
    """A function or class, and its docstring's first paragraph."""

    name: str
    is_class: bool
    paragraph: str
    held_out: bool


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
    """Learnt from every docstring of the training files: so more words than the pairs have are one token."""
    path = home() / "data" / f"docstrings-{fingerprint()[:12]}" / "tokenizer.json"
    if not path.is_file():
        texts = [f"{_words(each)} {each.paragraph}" for each in _documented() if not each.held_out]
        words = (re.sub(_NO_WORD, " ", text.lower()).strip() for text in texts)
        plain = tokenizer_file(path.with_name("words.json"), words, VOCABULARY)
        tokenizer = load_tokenizer(plain)
        no_word = normalizers.Replace(Regex(_NO_WORD), " ")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), no_word, normalizers.Strip()])
        write_atomically(path, tokenizer.to_str().encode())
    return path


@cache
def _splits() -> dict[SplitName, Pairs]:
    """Both splits, each pair once."""
    train = [pair for each in _documented() if not each.held_out and (pair := _pair(each))]
    learnt = {source for source, _ in train}
    asked = (each for each in _documented() if each.held_out and not each.is_class)
    validation = [pair for each in asked if (pair := _pair(each)) and pair[0] not in learnt]
    return {"train": list(dict.fromkeys(train)), "validation": list(dict.fromkeys(validation))}


@cache
def _documented() -> tuple[Documented, ...]:
    """Everything in the library that has a docstring, file by file."""
    return tuple(
        Documented(node.name, isinstance(node, ast.ClassDef), text.partition("\n\n")[0], held_out)
        for path in library_files()
        for held_out in [hashed(path) % HELD_OUT_EVERY == 0]
        for node in ast.walk(ast.parse(path.read_text("utf-8", errors="replace")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and (text := ast.get_docstring(node))
    )


def _pair(documented: Documented) -> tuple[str, str] | None:
    name, source = _words(documented), _first_sentence(documented.paragraph)
    fits = name and _shares_a_word(source, name) and not _says(source, documented.name.strip("_"))
    return (source, name) if fits else None


def _first_sentence(paragraph: str) -> str:
    return " ".join(_SENTENCE_END.split(" ".join(paragraph.split()))[0].split()[:WORDS])


def _words(documented: Documented) -> str:
    """The words of a name, space between them; nothing for `__init__` and other spellings."""
    name = "" if documented.name.startswith("__") else documented.name.strip("_")
    if documented.is_class:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return name.replace("_", " ") if _SNAKE.fullmatch(name) else ""


def _shares_a_word(source: str, name: str) -> bool:
    return not set(name.split()).isdisjoint(re.split(_NO_WORD, source.lower()))


def _says(source: str, name: str) -> bool:
    """Whether a text spells a name out: as a call, or where it is of several words."""
    return f"{name}(" in source or (not (name.isalpha() and name.islower()) and name in source)
