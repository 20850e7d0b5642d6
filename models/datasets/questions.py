"""Questions about functions of the standard library, each answered by a piece of the function's own source.

Seven kinds: what an argument's default is, which exception is raised, what is returned,
looped over, tested first, assigned to a name, and which argument is the first. Python's parser knows the
answers. Files are on one side of the split as a whole. The trade-offs: a context is a function's beginning,
and what it asks twice (two exceptions, two returns) is not asked; questions are in two wordings each.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.datasets.dataset import IGNORED, Array, Dataset, Split, SplitName, View
from models.datasets.library import hashed, library_files
from models.datasets.packages import own_tokenizer
from models.datasets.wordpieces import PAD_ID
from models.errors import DataError
from models.storage import code_digest, digest, versions
from runtime.manifest import TextProcessing
from runtime.processing import load_tokenizer, padded
from runtime.spans import encodings

# By kind, two ways to ask; `{}` is the name that is asked about.
WORDINGS = {
    "default": ("what is the default of {}?", "which value does {} have by default?"),
    "raised": ("which exception is raised?", "what does it raise?"),
    "returned": ("what does it return?", "what is returned?"),
    "looped": ("what does it loop over?", "what is iterated over?"),
    "tested": ("what is tested first?", "which condition comes first?"),
    "assigned": ("what is assigned to {}?", "what is {} set to?"),
    "first": ("what is the first argument?", "which argument comes first?"),
}
# A context is whole lines of at most this many characters, some 70 tokens.
CHARACTERS, LONGEST_ANSWER = 260, 60
# Of each kind at most.
QUESTIONS: dict[SplitName, int] = {"train": 1200, "validation": 100}
HELD_OUT_EVERY = 8
PROCESSING = TextProcessing(max_length=120, pad_id=PAD_ID, token_type_ids=True, pair=True)
_MODULES = (__name__, "models.datasets.library", "models.datasets.packages", "models.datasets.wordpieces")


class Example(NamedTuple):
    """A question of a kind, and its answer: `context[start:end]`."""

    kind: str
    question: str
    context: str
    start: int
    end: int


@cache
def fingerprint() -> str:
    """sha256 over the questions, and the code and library that ask and tokenize them."""
    rows = (repr(tuple(example)) for split in examples().values() for example in split)
    return digest(*rows, code_digest(_MODULES), repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """The questions in `view`'s tokens, or their own. Raises DataError for a model that reads no pairs."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, TextProcessing) or not processing.pair:
        raise DataError(
            "data set 'questions' holds questions with contexts, and this model does not read both"
        )
    tokenizer = view.tokenizer or own_tokenizer()

    def load(split: SplitName) -> Split:
        return question_split(examples()[split], processing, tokenizer)

    files = {"tokenizer.json": tokenizer}
    return Dataset("questions", "question-answering", fingerprint(), (), processing, load, files)


def question_split(asked: list[Example], processing: TextProcessing, tokenizer: Path) -> Split:
    """Pairs in tokens; targets are the answer's first and last token, int64 [examples, 2].

    They are IGNORED where the answer was cut off with the end of its context.
    """
    items = [{"question": each.question, "context": each.context} for each in asked]
    encoded = encodings(load_tokenizer(tokenizer), items, processing)
    ends = [
        [pair.char_to_token(place, 1) for place in (each.start, each.end - 1)]
        for pair, each in zip(encoded, asked, strict=True)
    ]
    whole = [[IGNORED, IGNORED] if None in pair else pair for pair in ends]
    return Split(padded(encoded, processing), np.array(whole, np.int64), items)


@cache
def examples() -> dict[SplitName, list[Example]]:
    """Both splits, from files in the order of their hashes."""
    files = sorted(library_files(), key=hashed)
    train = _take("train", (path for path in files if hashed(path) % HELD_OUT_EVERY))
    # The same function stands in several files: what was learnt from is not judged by.
    learnt = {example.context for example in train}
    held_out = (path for path in files if not hashed(path) % HELD_OUT_EVERY)
    return {"train": train, "validation": _take("validation", held_out, learnt)}


def _take(split: SplitName, paths: Iterable[Path], known: Iterable[str] = ()) -> list[Example]:
    """Questions of each kind, until there are enough of all or the files are read."""
    excluded, wanted = set(known), QUESTIONS[split]
    by_kind: dict[str, list[Example]] = {kind: [] for kind in WORDINGS}
    for path in paths:
        for example in questions_of(path.read_text("utf-8", errors="replace")):
            if example.context not in excluded and len(by_kind[example.kind]) < wanted:
                by_kind[example.kind].append(example)
        if min(map(len, by_kind.values())) == wanted:
            break
    return [example for found in by_kind.values() for example in found]


def questions_of(source: str) -> Iterator[Example]:
    """What can be asked about each function of `source`; nothing where it is not Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    lines = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _asked(node, lines)


def _asked(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> Iterator[Example]:
    context = _context(function, lines)
    starts = np.cumsum([0, *map(len, context.splitlines(keepends=True))])
    for kind, name, answer in _answers(function):
        places = (answer.lineno, answer.col_offset), (answer.end_lineno, answer.end_col_offset)
        rows = [(line or 0) - function.lineno for line, _ in places]
        if max(rows) >= len(starts) - 1:
            continue
        start, end = (
            int(starts[row]) + (column or 0) - function.col_offset
            for row, (_, column) in zip(rows, places, strict=True)
        )
        if isinstance(answer, ast.arg):
            end = start + len(answer.arg)
        if 0 < end - start <= LONGEST_ANSWER:
            wordings = WORDINGS[kind]
            question = wordings[len(context) % len(wordings)].format(name)
            yield Example(kind, question, context, start, end)


def _context(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    """The function's first lines without their common indentation; none where columns would not hold."""
    taken: list[str] = []
    for line in lines[function.lineno - 1 : function.end_lineno]:
        outside = line[: function.col_offset].strip() != ""
        if outside or not line.isascii() or sum(map(len, taken)) + len(line) > CHARACTERS:
            break
        taken.append(line[function.col_offset :] or "\n")
    return "".join(taken).rstrip()


def _answers(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[str, str, ast.expr | ast.arg]]:
    """(kind, name asked about, the part that is the answer) of what has one answer only."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    defaults = function.args.defaults
    if defaults:
        for argument, default in zip(arguments[-len(defaults) :], defaults, strict=True):
            yield "default", argument.arg, default
    own = [argument for argument in arguments if argument.arg not in ("self", "cls")]
    if len(own) > 1:
        yield "first", "", own[0]
    found = list(ast.walk(function))
    yield from _only("raised", (node.exc for node in found if isinstance(node, ast.Raise)))
    yield from _only("returned", (node.value for node in found if isinstance(node, ast.Return)))
    yield from _only("looped", (node.iter for node in found if isinstance(node, ast.For)))
    tests = [node.test for node in found if isinstance(node, ast.If)]
    if tests:
        yield "tested", "", min(tests, key=lambda test: test.lineno)
    yield from _assigned([node for node in found if isinstance(node, ast.Assign)])


def _only(kind: str, found: Iterable[ast.expr | None]) -> Iterator[tuple[str, str, ast.expr]]:
    """The one that there is; of an exception its name, without what it is called with."""
    nodes = list(found)
    if len(nodes) == 1 and nodes[0] is not None:
        answer = nodes[0].func if kind == "raised" and isinstance(nodes[0], ast.Call) else nodes[0]
        yield kind, "", answer


def _assigned(found: list[ast.Assign]) -> Iterator[tuple[str, str, ast.expr]]:
    """What a name is set to, of names that are set once."""
    names = [each.targets[0].id if isinstance(each.targets[0], ast.Name) else "" for each in found]
    for name, each in zip(names, found, strict=True):
        if name and names.count(name) == 1:
            yield "assigned", name, each.value


def guesses(learnt: list[Example], asked: list[Example]) -> tuple[Array, Array]:
    """Hits, bool [asked], of two that read no context: a kind's commonest place, and its commonest text.

    The place is in characters from where the context begins.
    """
    places: dict[str, dict[tuple[int, int], int]] = {kind: {} for kind in WORDINGS}
    texts: dict[str, dict[str, int]] = {kind: {} for kind in WORDINGS}
    for each in learnt:
        place, text = (each.start, each.end), each.context[each.start : each.end]
        places[each.kind][place] = places[each.kind].get(place, 0) + 1
        texts[each.kind][text] = texts[each.kind].get(text, 0) + 1
    by_place = [max(places[each.kind], key=places[each.kind].__getitem__) for each in asked]
    by_text = [max(texts[each.kind], key=texts[each.kind].__getitem__) for each in asked]
    pairs = zip(asked, by_place, by_text, strict=True)
    hits = [((e.start, e.end) == place, e.context[e.start : e.end] == text) for e, place, text in pairs]
    first, second = np.array(hits, bool).T
    return first, second
