import numpy as np
import pytest

from runtime.answers import Run, answer
from runtime.errors import InputError
from runtime.manifest import Subwords, WordProcessing
from runtime.words import (
    check_words,
    encode_words,
    fnv1a,
    nearest_words,
    number_words,
    rows_asked,
    subwords_of,
)

LABELS = ("read", "write", "parser")
ROWS = number_words(LABELS)
WHOLE = WordProcessing()
SUBWORDS = Subwords(buckets=1000, most=8)
PIECES = WordProcessing(subwords=SUBWORDS)


def test_words_are_their_places_among_the_labels_whatever_their_case() -> None:
    ids = encode_words(["parser", " Read\n", "READ"], WHOLE, ROWS)["word_ids"]
    assert ids.tolist() == [2, 0, 0]
    assert ids.dtype == np.int64


@pytest.mark.parametrize("processing", [WHOLE, PIECES])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the batch is empty"),
        (["read", " "], "the word is empty"),
        ([""], "the word is empty"),
        (["read write"], "'read write' is 2 words"),
        ([3], "send words as text"),
    ],
)
def test_what_is_not_one_word_is_refused(processing: WordProcessing, words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        encode_words(words, processing, ROWS)


@pytest.mark.parametrize("word", ["parsers", "夜", "x" * 10_000])
def test_without_subwords_an_unknown_word_is_one_short_line(word: str) -> None:
    with pytest.raises(InputError) as caught:
        encode_words(["read", word], WHOLE, ROWS)
    assert f"'{word[:50]}' is not among the 3 words" in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(("data", "value"), [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)])
def test_the_hash_is_fnv_1a(data: bytes, value: int) -> None:
    """The test vectors of its authors (http://www.isthe.com/chongo/src/fnv/test_fnv.c)."""
    assert fnv1a(data) == value


def test_a_words_pieces_are_itself_and_its_marked_ngrams() -> None:
    grams = ["<re", "<rea", "<read", "rea", "read", "read>", "ead", "ead>", "ad>"]
    hashed = [1 + fnv1a(gram.encode()) % 1000 for gram in grams]
    plenty = Subwords(buckets=1000, most=20)
    assert subwords_of("read", plenty, None) == hashed
    assert subwords_of("read", plenty, 1) == [1002, *hashed]
    assert subwords_of("read", SUBWORDS, 1) == [1002, *hashed[:7]]


def test_with_subwords_any_word_is_read() -> None:
    inputs = encode_words(["write", "parsers", "夜", "x" * 10_000], PIECES, ROWS)
    ids = inputs["subword_ids"]
    assert ids.shape == (4, 8)
    assert ids.dtype == np.int64
    assert (ids[2] > 0).tolist() == [True] + [False] * 7
    assert (ids >= 0).all()
    assert (ids[1:] <= 1000).all()
    assert rows_asked(inputs, PIECES).tolist() == [1, -1, -1, -1]


def test_the_asked_word_is_not_among_its_neighbours() -> None:
    similarity = np.array([[1.0, 0.2, 0.5], [0.1, 0.3, 0.2]], np.float32)
    first, second = nearest_words(similarity, np.array([0, -1]), LABELS)
    assert [each["word"] for each in first] == ["parser", "write"]
    assert [each["word"] for each in second] == ["write", "parser"]
    assert first[0]["similarity"] == 0.5
    assert similarity[0, 0] == 1.0


def test_an_answer_is_a_vector_and_ten_neighbours() -> None:
    labels = [f"word{row}" for row in range(30)]
    similarity = np.linspace(-1, 1, 30, dtype=np.float32)[None]
    outputs = {"similarity": similarity, "vector": np.ones((1, 4), np.float32)}
    inputs = encode_words(["word29"], WHOLE, number_words(labels))
    (said,) = answer(Run("word-vectors", WHOLE, labels, inputs, outputs))
    assert said["vector"] == [1, 1, 1, 1]
    assert [each["word"] for each in said["neighbours"]] == [f"word{row}" for row in range(28, 18, -1)]


@pytest.mark.parametrize(
    ("name", "processing", "most"),
    [("word_ids", WordProcessing(), len(LABELS) - 1), ("subword_ids", PIECES, 1000 + len(LABELS))],
)
def test_numbers_that_no_word_has_are_refused(name: str, processing: WordProcessing, most: int) -> None:
    check_words({name: np.array([[0, most]])}, processing, len(LABELS))
    for wrong in (-1, most + 1):
        with pytest.raises(InputError, match=f"outside 0 to {most}"):
            check_words({name: np.array([[0, wrong]])}, processing, len(LABELS))
