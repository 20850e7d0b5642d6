import numpy as np
import pytest

from models.datasets import IGNORED, View, load_dataset
from models.datasets.code_tokens import LABELS, kinds_of
from models.errors import DataError
from runtime.manifest import ImageProcessing
from runtime.processing import load_tokenizer

CODE = '''class Reader(Base):
    def read(self, size: Dict[str, int] = 3, *rest):
        """Return what
        is left."""
        return self.file.read(size)  # all of it
\x0c
def empty(): pass
'''


def kinds(word: str, text: str = CODE) -> str:
    """The kind of the first character of `word`."""
    found = kinds_of(text)[text.index(word)]
    return LABELS[found] if found >= 0 else "none"


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("class", "keyword"),
        ("Reader", "definition"),
        ("Base", "name"),
        ("read(self", "definition"),
        ("self, ", "parameter"),
        ("size:", "parameter"),
        ("Dict", "name"),
        ("int]", "name"),
        ("3", "number"),
        ("*rest", "operator"),
        ("rest", "parameter"),
        ("is left", "string"),
        ("self.file", "name"),
        ("file", "attribute"),
        ("read(size", "call"),
        ("size)", "name"),
        ("all of", "comment"),
        ("empty", "definition"),
        (" Reader", "none"),
    ],
)
def test_a_character_has_the_kind_of_its_token(word: str, kind: str) -> None:
    assert kinds(word) == kind


def test_what_is_not_python_has_no_kind() -> None:
    text = 'x = 1\ny = """never closed'
    assert kinds("x", text) == "name"
    assert kinds("never", text) == "none"
    assert (kinds_of("¿ 这是 } 1")[1:] == -1).any()


def test_pieces_are_labelled_and_special_tokens_are_not() -> None:
    dataset = load_dataset("code-tokens")
    split = dataset.validation
    assert split.targets is not None
    assert split.raw is not None
    assert set(np.unique(split.targets)) == {IGNORED, *range(len(LABELS))}
    assert (split.targets[:, 0] == IGNORED).all()
    assert (split.targets[split.inputs["attention_mask"] == 0] == IGNORED).all()
    comma = load_tokenizer(dataset.files["tokenizer.json"]).token_to_id(",")
    kinds = {LABELS[kind] for kind in split.targets[split.inputs["input_ids"] == comma] if kind != IGNORED}
    # A comma is an operator in code only: no piece says by itself what it is.
    assert kinds == {"operator", "string", "comment"}


def test_no_snippet_is_on_both_sides() -> None:
    dataset = load_dataset("code-tokens")
    assert not set(dataset.train.raw or ()) & set(dataset.validation.raw or ())


def test_a_model_that_does_not_read_text_is_refused() -> None:
    images = ImageProcessing(mode="L", height=8, width=8, rescale=1.0, mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match="does not read text"):
        load_dataset("code-tokens", View(processing=images))
