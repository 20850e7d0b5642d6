"""The Stanford Sentiment Treebank with two classes (Socher et al., 2013): 6,920 and 872 sentences.

Read from $MODELPRESS_DATA/sst2 (train.tsv, dev.tsv: sentence, tab, 0 or 1). Whole sentences only, no phrases.
"""

from pathlib import Path

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import text_split
from models.datasets.folders import data_file
from models.datasets.wordpieces import PAD_ID, tokenizer_file
from models.errors import DataError
from models.storage import code_digest, digest, file_digest, home, versions
from runtime.manifest import TextProcessing

LABELS = ("negative", "positive")
PROCESSING = TextProcessing(max_length=64, pad_id=PAD_ID)
_FILES: dict[SplitName, str] = {"train": "train.tsv", "validation": "dev.tsv"}


def fingerprint() -> str:
    """sha256 over the two files, and the code and library that tokenize them."""
    contents = [file_digest(data_file("sst2", name)) for name in _FILES.values()]
    code = code_digest([__name__, "models.datasets.wordpieces"])
    return digest(*contents, code, repr(versions(["tokenizers"])))


def open_dataset(view: View) -> Dataset:
    """The sentences in `view`'s tokens, or their own. Raises DataError without the files, or for no text."""
    processing = view.processing or PROCESSING
    if not isinstance(processing, TextProcessing):
        raise DataError("data set 'sst2' holds sentences to classify, and this model does not read text")
    data_file("sst2", _FILES["train"])
    tokenizer = view.tokenizer or _own_tokenizer()

    def load(split: SplitName) -> Split:
        rows = _labelled(split)
        return text_split([text for text, _ in rows], [label for _, label in rows], processing, tokenizer)

    files = {"tokenizer.json": tokenizer}
    return Dataset("sst2", "text-classification", fingerprint(), LABELS, processing, load, files)


def _labelled(split: SplitName) -> list[tuple[str, int]]:
    lines = data_file("sst2", _FILES[split]).read_text("utf-8").splitlines()
    rows = (line.rsplit("\t", 1) for line in lines)
    return [(text, int(label)) for text, label in rows]


def _own_tokenizer() -> Path:
    path = home() / "data" / f"sst2-{fingerprint()[:12]}" / "tokenizer.json"
    return tokenizer_file(path, (text for text, _ in _labelled("train")))
