"""The Stanford Sentiment Treebank with two classes (Socher et al., 2013): 6,920 and 872 sentences.

Read from $MODELPRESS_DATA/sst2 (train.tsv, dev.tsv: sentence, tab, 0 or 1). Whole sentences only, no phrases.
"""

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import text_split
from models.datasets.folders import data_file
from models.errors import DataError
from models.storage import code_digest, digest, file_digest
from runtime.manifest import TextProcessing

LABELS = ("negative", "positive")
_FILES: dict[SplitName, str] = {"train": "train.tsv", "validation": "dev.tsv"}


def fingerprint() -> str:
    """sha256 over the two files."""
    contents = [file_digest(data_file("sst2", name)) for name in _FILES.values()]
    return digest(*contents, code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The sentences in the model's tokens. Raises DataError without the files, or without a tokenizer."""
    processing, tokenizer = view.processing, view.tokenizer
    if tokenizer is None or not isinstance(processing, TextProcessing):
        raise DataError("data set 'sst2' holds sentences to classify, and this model does not read text")

    def load(split: SplitName) -> Split:
        lines = data_file("sst2", _FILES[split]).read_text("utf-8").splitlines()
        rows = [line.rsplit("\t", 1) for line in lines]
        return text_split([row[0] for row in rows], [int(row[1]) for row in rows], processing, tokenizer)

    files = {"tokenizer.json": tokenizer}
    return Dataset("sst2", "text-classification", fingerprint(), LABELS, processing, load, files)
