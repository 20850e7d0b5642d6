"""The Python standard library's own source, as a corpus of code that every installation already has.

The files are those of `models.datasets.library`. The tokenizer (byte-level BPE) and the token streams are
made once and cached. The trade-off: the text is that of the running interpreter, so figures move a little
between Python versions, and the fingerprint says which text it was.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from models.datasets.dataset import Array, Dataset, Split, SplitName, View
from models.datasets.encoding import encode_corpus, token_windows
from models.datasets.library import hashed, library_files
from models.errors import DataError
from models.storage import code_digest, digest, home, versions, write_atomically
from runtime.manifest import GenerationProcessing
from runtime.processing import load_tokenizer

VOCABULARY = 4096
END_OF_TEXT = "<|endoftext|>"
END_ID = 0
# One file in eleven is held out, by the hash of its path: about 50 files, and no file ever changes sides.
HELD_OUT_EVERY = 11
PROCESSING = GenerationProcessing(bos_id=END_ID, eos_ids=(END_ID,))


@cache
def fingerprint() -> str:
    """sha256 over the text itself, and the code and library that tokenize it."""
    contents = [path.read_bytes() for split in ("train", "validation") for path in _paths()[split]]
    return digest(
        *contents, code_digest([__name__, "models.datasets.library"]), repr(versions(["tokenizers"]))
    )


def open_dataset(view: View) -> Dataset:
    """The corpus in `view`'s tokens, or its own. Raises DataError for a model that does not generate text."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, GenerationProcessing):
        raise DataError("data set 'stdlib' is for text generation, and this model does not generate text")
    folder = home() / "data" / f"stdlib-{fingerprint()[:12]}"
    tokenizer = view.tokenizer or _own_tokenizer(folder)

    def load(split: SplitName) -> Split:
        stream = _encode(view.tokenizer, split, processing) if view.tokenizer else _own_stream(folder, split)
        return token_windows(stream, view.window)

    files = {"tokenizer.json": tokenizer}
    return Dataset("stdlib", "text-generation", fingerprint(), (), processing, load, files)


@cache
def _paths() -> dict[SplitName, list[Path]]:
    """The files of each split, in order."""
    paths: dict[SplitName, list[Path]] = {"train": [], "validation": []}
    for path in library_files():
        paths["train" if hashed(path) % HELD_OUT_EVERY else "validation"].append(path)
    return paths


def _documents(split: SplitName) -> list[str]:
    texts = [path.read_text("utf-8", errors="replace") for path in _paths()[split]]
    return [text for text in texts if text.strip()]


def _own_tokenizer(folder: Path) -> Path:
    """tokenizer.json: byte-level BPE (Radford et al., 2019) learnt from the training files alone."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(_documents("train"), trainer)
        write_atomically(path, tokenizer.to_str().encode())
    return path


def _own_stream(folder: Path, split: SplitName) -> Array:
    """One split's tokens, uint16 [tokens], from the cache."""
    path = folder / f"{split}.npy"
    if not path.is_file():
        stream = _encode(_own_tokenizer(folder), split, PROCESSING).astype(np.uint16)
        write_atomically(path, _npy(stream))
    return np.asarray(np.load(path))


def _encode(tokenizer: Path, split: SplitName, processing: GenerationProcessing) -> Array:
    end = processing.eos_ids[0] if processing.eos_ids else None
    return encode_corpus(load_tokenizer(tokenizer), _documents(split), end)


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
