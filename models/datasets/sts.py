"""Semantic textual similarity, SemEval 2014 and 2015: pairs of sentences with a human score from 0 to 5.

Read from $MODELPRESS_DATA/sts (score, sentence, sentence; rows without a score are skipped). The tasks of
2014 are the training split, to calibrate on; those of 2015 are held out. Agirre et al., SemEval-2014 task 10,
2015 task 2.
"""

from models.datasets.dataset import Dataset, Split, SplitName, View
from models.datasets.encoding import pair_split
from models.datasets.folders import data_file
from models.errors import DataError
from models.storage import code_digest, digest, file_digest
from runtime.manifest import TextProcessing

FILES: dict[SplitName, tuple[str, ...]] = {
    "train": ("2014.OnWN.tsv", "2014.deft-news.tsv", "2014.headlines.tsv", "2014.images.tsv"),
    "validation": ("2015.answers-students.tsv", "2015.belief.tsv", "2015.headlines.tsv", "2015.images.tsv"),
}


def fingerprint() -> str:
    """sha256 over the files."""
    paths = [data_file("sts", name) for names in FILES.values() for name in names]
    return digest(*map(file_digest, paths), code_digest([__name__]))


def open_dataset(view: View) -> Dataset:
    """The pairs in the model's tokens. Raises DataError without the files, or without a tokenizer."""
    processing, tokenizer = view.processing, view.tokenizer
    if tokenizer is None or not isinstance(processing, TextProcessing):
        raise DataError("data set 'sts' holds pairs of sentences, and this model does not embed text")

    def load(split: SplitName) -> Split:
        rows = [row for name in FILES[split] for row in scored(name)]
        pairs = [(first, second) for _, first, second in rows]
        return pair_split(pairs, [score for score, _, _ in rows], processing, tokenizer)

    return Dataset("sts", "embedding", fingerprint(), (), processing, load, {"tokenizer.json": tokenizer})


def scored(name: str) -> list[tuple[float, str, str]]:
    """A file's rows that have a score: the score and both sentences."""
    lines = data_file("sts", name).read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [(float(row[0]), row[1], row[2]) for row in rows if len(row) == 3 and row[0].strip()]
