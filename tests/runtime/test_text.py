from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtime.text import TextStream


def bytes_tokenizer() -> Tokenizer:
    """One token a byte: every character outside ASCII is split."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = bytes_tokenizer()


def stream(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    feed = TextStream(TOKENIZER, stop)
    pieces = [feed.push(token) for token in TOKENIZER.encode(text).ids]
    return [*pieces, feed.flush()], feed


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=40))
def test_the_pieces_are_the_text_and_no_character_is_split(text: str) -> None:
    pieces, feed = stream(text)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces if "\ufffd" not in text)
    assert not feed.stopped


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    pieces, feed = stream(text, tuple(stop))
    # The stop string that is complete first ends the text, at the earliest place where one begins.
    for end in range(len(text) + 1):
        starts = [at for word in stop if (at := text[:end].find(word)) >= 0]
        if starts:
            assert feed.stopped
            assert "".join(pieces) == text[: min(starts)]
            return
    assert not feed.stopped
    assert "".join(pieces) == text


def test_only_a_possible_stop_is_held_back() -> None:
    pieces, _ = stream("a<b<st", ("<stop>",))
    assert pieces == ["a", "", "<b", "", "", "", "<st"]


@pytest.mark.parametrize("character", ["é", "€", "🙂"])
def test_a_character_comes_whole_with_its_last_byte(character: str) -> None:
    pieces, _ = stream(character)
    assert [piece for piece in pieces if piece] == [character]


def test_special_tokens_are_not_text(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    feed = TextStream(tokenizer)
    assert feed.push(tokenizer.token_to_id("<end>")) + feed.flush() == ""
