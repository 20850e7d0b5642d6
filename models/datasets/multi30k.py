"""Multi30k (Elliott et al., 2016, arXiv:1605.00459): captions of pictures, English to German.

Read from $MODELPRESS_DATA/multi30k (train.en.gz, train.de.gz, val.en.gz, val.de.gz: a sentence a line, 29,000
and 1,014 pairs). Sentences stand as they are written, in their own case. The test set is not read.
"""

import gzip
import zlib
from pathlib import Path

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import answer_split, reads_sources
from models.datasets.folders import data_file
from models.datasets.subwords import PROCESSING, tokenizer_file
from models.errors import DataError
from models.storage import code_digest, digest, file_digest, home, versions

VOCABULARY = 4096
_FILES: dict[SplitName, str] = {"train": "train", "validation": "val"}


def fingerprint() -> str:
    """sha256 over the files, and the code and library that tokenize them."""
    contents = [file_digest(data_file("multi30k", name)) for name in _names()]
    code = code_digest([__name__, "models.datasets.subwords"])
    return digest(*contents, code, repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """The pairs in `view`'s tokens, or their own. Raises DataError for a model that reads no source."""
    processing = reads_sources("multi30k", view.processing or PROCESSING)
    data_file("multi30k", "train.en.gz")
    tokenizer = view.tokenizer or _own_tokenizer()

    def load(split: SplitName) -> Split:
        return answer_split(_pairs(split), processing, tokenizer, view.window)

    files = {"tokenizer.json": tokenizer}
    return Dataset("multi30k", "text2text-generation", fingerprint(), (), processing, load, files)


def _names() -> list[str]:
    return [f"{name}.{language}.gz" for name in _FILES.values() for language in ("en", "de")]


def _pairs(split: SplitName) -> list[tuple[str, str]]:
    english, german = (_lines(data_file("multi30k", f"{_FILES[split]}.{each}.gz")) for each in ("en", "de"))
    if len(english) != len(german):
        raise DataError(
            f"multi30k: {len(english)} English lines and {len(german)} German ones; copy it again"
        )
    return list(zip(english, german, strict=True))


def _lines(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return stream.read().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable .gz file of UTF-8 text ({error}); copy it again") from None


def _own_tokenizer() -> Path:
    path = home() / "data" / f"multi30k-{fingerprint()[:12]}" / "tokenizer.json"
    return tokenizer_file(path, (text for pair in _pairs("train") for text in pair), VOCABULARY)
