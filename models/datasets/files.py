"""A user's own data: .npz arrays, or .jsonl, .tsv and .csv texts. Split the same way every time.

.npz      arrays named as the model's inputs, examples along the first axis, and `labels` or `targets`
.jsonl    one {"text": …, "label": …} a line; for token classification {"text": …, "labels": [one a word]}
.tsv .csv text[, label] in two columns; a first row that says `text` is a header

A label is an index or one of the model's label names. Columns cannot be mapped: convert other layouts first.
"""

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.datasets.dataset import Array, Dataset, Split, SplitName, View
from models.datasets.encoding import encode_corpus, text_split, token_windows, word_split
from models.errors import DataError
from models.storage import code_digest, digest, file_digest
from runtime.manifest import GenerationProcessing, Task, TensorProcessing, TextProcessing
from runtime.memory import available_memory
from runtime.processing import load_tokenizer

SUFFIXES = (".npz", ".jsonl", ".tsv", ".csv")
HELD_OUT = 0.2
_TARGETS = ("labels", "targets")
# Spreadsheets put a byte order mark before the first column's name.
ENCODING = "utf-8-sig"


@dataclass(frozen=True, slots=True)
class _Rows:
    """Texts, and what each is labelled with: None, one label, or a list of them."""

    texts: list[str]
    labels: list[Any]


def fingerprint(path: Path) -> str:
    """sha256 over the file's content and this module, which splits it."""
    return digest(file_digest(_existing(path)), code_digest([__name__]))


def open_dataset(path: Path, view: View) -> Dataset:
    """The file at `path` as `view` wants it. Raises DataError for what does not fit format or model."""
    if _existing(path).suffix == ".npz":
        return _open_arrays(path)
    return _open_texts(path, view)


def _open_arrays(path: Path) -> Dataset:
    arrays = {name: _native(array) for name, array in _read_arrays(path).items()}
    targets = next((arrays.pop(name) for name in _TARGETS if name in arrays), None)
    if targets is not None and targets.dtype.kind in "iu":
        targets = targets.astype(np.int64)
    lengths = {array.shape[:1] for array in (*arrays.values(), *([] if targets is None else [targets]))}
    if not arrays or len(lengths) != 1 or () in lengths:
        raise DataError(
            f"{path}: needs input arrays, all as long as the targets; their lengths are {lengths}"
        )
    rows = split_rows(lengths.pop()[0], path)

    def load(split: SplitName) -> Split:
        chosen = {name: array[rows[split]] for name, array in arrays.items()}
        return Split(chosen, None if targets is None else targets[rows[split]])

    return Dataset(path.name, "tensor", fingerprint(path), (), TensorProcessing(), load)


def _open_texts(path: Path, view: View) -> Dataset:
    if view.tokenizer is None or not isinstance(view.processing, TextProcessing | GenerationProcessing):
        raise DataError(f"{path} holds texts, and this model has no tokenizer; give it a .npz file instead")
    tokenizer, processing = view.tokenizer, view.processing
    if isinstance(processing, GenerationProcessing) and processing.start_ids:
        raise DataError(
            f"{path} holds texts, and an encoder-decoder wants an answer to each; give a registered set of "
            "sources and answers, such as docstrings"
        )
    content = _read_rows(path)
    rows = split_rows(len(content.texts), path)

    def load(split: SplitName) -> Split:
        texts = [content.texts[row] for row in rows[split]]
        if isinstance(processing, GenerationProcessing):
            end = processing.eos_ids[0] if processing.eos_ids else None
            return token_windows(encode_corpus(load_tokenizer(tokenizer), texts, end), view.window)
        labels = _indices([content.labels[row] for row in rows[split]], task, read_as, path)
        if task == "token-classification" and labels is not None:
            return word_split(texts, labels, processing, tokenizer)
        return text_split(texts, labels, processing, tokenizer)

    names = view.labels or _label_names(content.labels)
    read_as = () if _are_indices(content.labels, names) else names
    task = view.task or "text-classification"
    return Dataset(path.name, task, fingerprint(path), names, processing, load, {"tokenizer.json": tokenizer})


def _indices(labels: list[Any], task: Task, names: Sequence[str], path: Path) -> list[Any] | None:
    """Labels as indices (a list a text for token classification); None where there are none."""
    if task == "embedding" or all(label is None for label in labels):
        return None
    wanted = list if task == "token-classification" else (str, int)
    if not all(isinstance(label, wanted) for label in labels):
        raise DataError(
            f"{path}: every text needs one label{' a word' if wanted is list else ''}, or none has any"
        )
    if wanted is list:
        return [[_label_index(label, names, path) for label in words] for words in labels]
    return [_label_index(label, names, path) for label in labels]


def split_rows(count: int, path: Path) -> dict[SplitName, Array]:
    """Row numbers of the two splits: a fixed shuffle, the first fifth of it held out."""
    if count < 2:
        raise DataError(f"{path}: {count} examples; give at least two, one to learn from and one to judge by")
    order = np.random.default_rng(0).permutation(count)
    held_out = max(1, round(count * HELD_OUT))
    return {"validation": np.sort(order[:held_out]), "train": np.sort(order[held_out:])}


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array; name it with np.savez")
        with archive:
            _check_size(path)
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, MemoryError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{path}: not a readable .npz archive of plain arrays ({error}); write it again"
        ) from None
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise DataError(f"{path}: '{strange[0]}' is no array; write it again with np.savez")
    return arrays


def _native(array: Array) -> Array:
    """In this machine's byte order, which is all that torch takes."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_size(path: Path) -> None:
    """Raises DataError for what would not fit into memory: a small archive may unpack to any size."""
    with zipfile.ZipFile(path) as archive:
        needed = sum(member.file_size for member in archive.infolist())
    if needed > (free := available_memory()):
        raise DataError(f"{path}: unpacks to {needed:,} bytes, and {free:,} are free; give fewer examples")


def _read_rows(path: Path) -> _Rows:
    read: Callable[[Path], Iterator[tuple[str, Any]]] = (
        _read_jsonl if path.suffix == ".jsonl" else _read_table
    )
    try:
        pairs = [(text, label) for text, label in read(path) if text.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a table of texts ({error}); write it as .jsonl") from None
    return _Rows([text for text, _ in pairs], [label for _, label in pairs])


def _read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    # Not splitlines: JSON may hold the other separators of lines as they are.
    for number, line in enumerate(path.read_text(ENCODING).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            text = record["text"]
            if text is None:
                raise TypeError("null is no text")
            yield str(text), record.get("labels", record.get("label"))
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError):
            raise DataError(
                f'{path}, line {number}: want {{"text": …, "label": …}}, not {line[:60]!r}'
            ) from None


def _read_table(path: Path) -> Iterator[tuple[str, Any]]:
    tabs = path.suffix == ".tsv"
    with path.open(encoding=ENCODING, newline="") as stream:
        reader = csv.reader(
            stream, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        )
        for number, row in enumerate(reader, 1):
            if not row or (number == 1 and row[0].lower() == "text"):
                continue
            if len(row) > 2:
                raise DataError(
                    f"{path}, line {number}: {len(row)} columns; want a text and at most one label"
                )
            yield row[0], row[1] if len(row) == 2 else None


def _label_names(labels: Sequence[Any]) -> tuple[str, ...]:
    """The names of labels that are not indices, in alphabetical order; none where all are indices."""
    names = _words(labels)
    return () if all(map(_is_index, names)) else tuple(sorted(names))


def _are_indices(labels: Sequence[Any], names: Sequence[str]) -> bool:
    """Whether labels are indices of `names` that are numbers themselves, such as 0 to 4 of "1" to "5"."""
    words = _words(labels)
    return not words <= set(names) and all(_is_index(word) and int(word) < len(names) for word in words)


def _words(labels: Sequence[Any]) -> set[str]:
    rows = [label if isinstance(label, list) else [label] for label in labels if label is not None]
    return {str(word) for row in rows for word in row}


def _label_index(label: Any, names: Sequence[str], path: Path) -> int:
    if str(label) in names:
        return names.index(str(label))
    if _is_index(str(label)) and (not names or int(label) < len(names)):
        return int(label)
    raise DataError(
        f"{path}: label '{label}' is not one of the model's: {', '.join(names) or 'indices from 0'}"
    )


def _is_index(label: str) -> bool:
    """Whether it is a number of ASCII digits; `isdigit` alone takes superscripts for one."""
    return label.isascii() and label.isdigit()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; data is a registered set's name or a {', '.join(SUFFIXES)} file"
        )
    return path
