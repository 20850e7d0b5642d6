"""Kinds of code tokens: what each piece of a snippet of the standard library is, by Python's own `tokenize`.

Ten kinds. A piece gets the kind of the Python token that it lies in, so a word of a docstring is a string and
the same word elsewhere is a keyword or a name; of names it says what they are there for (defined, called, a
parameter, an attribute). Files are on one side of the split as a whole. The trade-offs: a snippet may begin
inside a string, as an editor's window may; and of long files only the beginning is used.
"""

import io
import keyword
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path

import numpy as np

from models.datasets.dataset import IGNORED, Array, Dataset, Split, SplitName, View
from models.datasets.encoding import text_split
from models.datasets.library import hashed, library_files
from models.datasets.packages import PROCESSING, own_tokenizer
from models.errors import DataError
from models.storage import code_digest, digest, versions
from runtime.manifest import TextProcessing
from runtime.processing import load_tokenizer

LABELS = (
    "keyword", "definition", "parameter", "call", "attribute", "name", "string", "comment", "number",
    "operator",
)  # fmt: skip
# A snippet is whole lines of about this many characters, some 80 tokens; a file gives this many at most.
CHARACTERS, MOST_OF_A_FILE = 280, 30
SNIPPETS: dict[SplitName, int] = {"train": 6000, "validation": 800}
HELD_OUT_EVERY = 8
_MODULES = (__name__, "models.datasets.library", "models.datasets.packages", "models.datasets.wordpieces")
_KINDS = {tokenize.COMMENT: "comment", tokenize.NUMBER: "number", tokenize.STRING: "string"}
_LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

# A text and the kind of each of its characters, int8, -1 for white space.
Snippet = tuple[str, Array]


@cache
def fingerprint() -> str:
    """sha256 over the snippets and their kinds, and the code and library that cut and tokenize them."""
    rows = (part for split in _splits().values() for text, kinds in split for part in (text, kinds.tobytes()))
    return digest(*rows, code_digest(_MODULES), repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """The snippets in `view`'s tokens, or their own. Raises DataError for a model that does not read text."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, TextProcessing):
        raise DataError("data set 'code-tokens' holds texts to tag, and this model does not read text")
    tokenizer = view.tokenizer or own_tokenizer()

    def load(split: SplitName) -> Split:
        texts = [text for text, _ in _splits()[split]]
        encoded = text_split(texts, None, processing, tokenizer)
        kinds = [kinds for _, kinds in _splits()[split]]
        return Split(encoded.inputs, _targets(encoded, kinds, tokenizer), texts)

    files = {"tokenizer.json": tokenizer}
    return Dataset("code-tokens", "token-classification", fingerprint(), LABELS, processing, load, files)


def _targets(split: Split, kinds: list[Array], tokenizer: Path) -> Array:
    """The kind of each piece's first character, int64 [texts, sequence]; special tokens are IGNORED."""
    targets: Array = np.full(split.inputs["input_ids"].shape, IGNORED, np.int64)
    encodings = load_tokenizer(tokenizer).encode_batch(list(split.raw or ()))
    for row, (encoding, of_characters) in enumerate(zip(encodings, kinds, strict=True)):
        starts, ends = np.array(encoding.offsets[: targets.shape[1]]).T
        found = of_characters[np.minimum(starts, len(of_characters) - 1)].astype(np.int64)
        targets[row, : len(found)] = np.where((starts < ends) & (found >= 0), found, IGNORED)
    return targets


@cache
def _splits() -> dict[SplitName, list[Snippet]]:
    """Both splits: the first snippets of files in the order of their hashes."""
    files = sorted(library_files(), key=hashed)
    train = _take("train", (path for path in files if hashed(path) % HELD_OUT_EVERY))
    # Licences and the like stand in several files: what was learnt from is not judged by.
    learnt = {text for text, _ in train}
    held_out = (path for path in files if not hashed(path) % HELD_OUT_EVERY)
    return {"train": train, "validation": _take("validation", held_out, learnt)}


def _take(split: SplitName, paths: Iterable[Path], known: Iterable[str] = ()) -> list[Snippet]:
    found = (snippet for path in paths for snippet in islice(_snippets(path), MOST_OF_A_FILE))
    excluded = set(known)
    return list(islice((snippet for snippet in found if snippet[0] not in excluded), SNIPPETS[split]))


def _snippets(path: Path) -> Iterator[Snippet]:
    text = path.read_text("utf-8", errors="replace")
    kinds, start = kinds_of(text[: 2 * CHARACTERS * MOST_OF_A_FILE]), 0
    for end in _line_ends(text):
        if end - start >= CHARACTERS and end <= len(kinds):
            yield text[start:end].rstrip("\n"), kinds[start:end]
            start = end


def kinds_of(text: str) -> Array:
    """The kind of each character, int8 [characters]; -1 for white space and from where it is not Python."""
    lines = [0, *_line_ends(text)]
    kinds: Array = np.full(len(text), -1, np.int8)
    for token, kind in _labelled(text):
        (first, column), (last, end) = token.start, token.end
        kinds[lines[first - 1] + column : lines[last - 1] + end] = LABELS.index(kind)
    return kinds


def _line_ends(text: str) -> Iterator[int]:
    """Where each line ends, as `tokenize` counts lines: a form feed is not the end of one."""
    return accumulate(map(len, io.StringIO(text)))


def _labelled(text: str) -> Iterator[tuple[tokenize.TokenInfo, str]]:
    """Each token and its kind, as far as `text` is Python: a string that does not end is left out."""
    before, depth, opened = "", 0, None
    for token, following in pairwise(chain(_tokens(text), [None])):
        assert token is not None
        after = following.string if following else ""
        yield token, _kind(token, before, after, in_parameters=depth > 0 and depth == opened)
        depth += (token.string in "([{") - (token.string in ")]}")
        if token.string == "def":
            opened = depth + 1
        elif token.string == ":" and depth + 1 == opened:
            opened = None
        before = token.string


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _LAYOUT:
                yield token
    except (tokenize.TokenError, SyntaxError):
        return


def _kind(token: tokenize.TokenInfo, before: str, after: str, *, in_parameters: bool) -> str:
    if token.type != tokenize.NAME:
        # From Python 3.12 on, the parts of an f-string are tokens of their own.
        fstring = tokenize.tok_name[token.type].startswith("FSTRING")
        return "string" if fstring else _KINDS.get(token.type, "operator")
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return "definition"
    if in_parameters and before in ("(", ",", "*", "**"):
        return "parameter"
    if after == "(":
        return "call"
    return "attribute" if before == "." else "name"
