"""The bytes behind a token id."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtime.vocabulary import byte_alphabet, token_bytes, token_text


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


BYTE_LEVEL = byte_level()


@given(st.text())
def test_the_tokens_of_a_text_are_its_bytes(text):
    ids = BYTE_LEVEL.encode(text).ids
    assert b"".join(token_bytes(BYTE_LEVEL, token) for token in ids) == text.encode()


def test_the_alphabet_is_the_tokenizers_own():
    assert byte_alphabet().keys() == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_half_a_character_is_written_as_its_bytes():
    first, second = BYTE_LEVEL.encode("é").ids
    assert (token_text(BYTE_LEVEL, first), token_text(BYTE_LEVEL, second)) == ("bytes:\\xc3", "bytes:\\xa9")
    assert token_text(BYTE_LEVEL, BYTE_LEVEL.encode("e").ids[0]) == "e"


def test_a_sentencepiece_token_keeps_its_space_and_its_byte():
    tokenizer = Tokenizer(models.BPE(vocab={"▁the": 0, "<0xC3>": 1, "é": 2}, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    assert [token_bytes(tokenizer, token) for token in range(4)] == [b" the", b"\xc3", "é".encode(), b""]
