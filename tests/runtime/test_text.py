import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtime.text import TextStream
from runtime.vocabulary import byte_alphabet


def bytes_tokenizer() -> Tokenizer:
    """One token a byte: every character outside ASCII is split."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def fallback_tokenizer() -> Tokenizer:
    """As SentencePiece's: a character that is no token is its bytes, and a space stands before each word."""
    words = ["▁the", "▁", "a", "▁Paris"]
    symbols = [f"<0x{byte:02X}>" for byte in range(256)] + words
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<turn>"])
    return tokenizer


TOKENIZER = bytes_tokenizer()
FALLBACK = fallback_tokenizer()
THE, SPACE, A, PARIS, TURN = range(256, 261)


def pushed(tokenizer: Tokenizer, tokens: list[int], prompt: list[int] | None = None) -> str:
    feed = TextStream(tokenizer, prompt=prompt or [])
    return "".join(feed.push(token) for token in tokens) + feed.flush()


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


@pytest.mark.parametrize("text", ["\ufffd", "a\ufffd\ufffd", "\ufffd" * 9 + "b"])
def test_the_replacement_character_is_a_character(text: str) -> None:
    """It looks like half of one, and is not lost where an answer ends with it."""
    assert "".join(stream(text)[0]) == text


@given(st.lists(st.integers(0, 255), max_size=30))
def test_bytes_that_are_no_characters_are_replaced(tokens: list[int]) -> None:
    raw = bytes(tokens)
    # What might yet become a character is not shown.
    shown = codecs.getincrementaldecoder("utf-8")("replace").decode(raw)
    assert pushed(FALLBACK, tokens) == shown.removeprefix(" ")
    alphabet = {byte: TOKENIZER.token_to_id(symbol) for symbol, byte in byte_alphabet().items()}
    assert pushed(TOKENIZER, [alphabet[byte] for byte in raw]) == shown


@given(st.lists(st.integers(0, 259), max_size=30))
def test_no_answer_ends_in_an_error(tokens: list[int]) -> None:
    """Bytes that no character begins with, between words, made tokenizers take back what it had given."""
    text = pushed(FALLBACK, tokens)
    assert text.count(" Paris") == max(0, tokens.count(PARIS) - (tokens[:1] == [PARIS]))


def test_many_bytes_that_are_no_character_do_not_wait_for_one() -> None:
    feed = TextStream(FALLBACK)
    assert "".join(feed.push(0xFF) for _ in range(8)) == "\ufffd" * 8


def test_a_space_between_prompt_and_answer_is_kept() -> None:
    assert pushed(FALLBACK, [PARIS, THE], prompt=[THE]) == " Paris the"
    # At a turn's beginning it belongs to the tokenizer, not to the text.
    assert pushed(FALLBACK, [PARIS, THE], prompt=[THE, TURN]) == "Paris the"
    assert pushed(FALLBACK, [PARIS, THE]) == "Paris the"


def test_a_prompt_that_ends_within_a_character_is_not_said_again() -> None:
    assert pushed(FALLBACK, [THE], prompt=[A, 0xE2]) == "the"


def test_a_long_stop_string_costs_what_is_held_back_of_it() -> None:
    pieces, feed = stream("ab" * 50, ("ab" * 50 + "c" * 2**22,))
    assert pieces == [*[""] * 100, "ab" * 50]
    assert not feed.stopped
