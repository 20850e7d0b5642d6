"""OpenAI's four ways to write a prompt, or a text to embed."""

from typing import Annotated, Any

from pydantic import PlainValidator


def _prompts(value: Any) -> list[str | list[int]]:
    """OpenAI's four kinds of prompt as two: some texts, or some lists of tokens."""
    if isinstance(value, str) or _is_list_of(value, int):
        return [value]
    if _is_list_of(value, str) or (
        _is_list_of(value, list) and all(_is_list_of(part, int) for part in value)
    ):
        return list(value)
    raise ValueError("send a text, some texts, a list of tokens, or some lists of tokens, none of them empty")


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)


Prompts = Annotated[
    list[str | list[int]],
    PlainValidator(_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
]
