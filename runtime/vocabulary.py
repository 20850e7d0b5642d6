"""The bytes behind a token id: what a log-probability is about, when it is about half a character.

It asks the tokenizer's decoder, not its family: byte-level alphabets (GPT-2's) and byte fallback
(SentencePiece's) are told apart by what they decode.
"""

import re
from functools import cache

from tokenizers import Tokenizer

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The UTF-8 that `token_id` stands for, perhaps a part of a character; empty for an unknown id."""
    token = tokenizer.id_to_token(token_id) or ""
    if match := _BYTE_FALLBACK.fullmatch(token):
        return bytes([int(match[1], 16)])
    if _is_byte_level(tokenizer) and all(character in byte_alphabet() for character in token):
        return bytes(byte_alphabet()[character] for character in token)
    return token.replace("▁", " ").encode()


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    r"""The token as text; `bytes:\xe2\x82`, as OpenAI writes it, where its bytes are no whole characters."""
    raw = token_bytes(tokenizer, token_id)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, the other way round (Radford et al., 2019, `encoder.py`)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    return tokenizer.decoder is not None and tokenizer.decoder.decode(["xĠ"]) == "x "
