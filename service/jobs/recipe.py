"""Which recipes a stranger may run: nothing of his choosing is imported, and no file outside one folder read.

It knows no recipe's keys, which belong to the package that compresses: it looks at every string in the YAML.
What a recipe means, and whether it is a valid one, is said by the job itself.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from service.errors import InvalidRequest

MAX_BYTES = 16 * 2**10
# Deeper than any recipe; PyYAML takes quadratic time over brackets within brackets.
MAX_DEPTH = 16
_FILE_SOURCES = ("hf:", "onnx:")
# What no name and no path can hide in; bool is an int.
_PLAIN = (int, float, type(None))


def check_recipe(text: str) -> None:
    """Raise InvalidRequest for what is not YAML, reaches outside the job's folder, or would run code."""
    for value in _strings(_content(text)):
        if value.startswith("py:"):
            raise InvalidRequest(
                f"recipe: '{value}' would run code of its own; run it from the shell", "recipe"
            )
        path = next((value.removeprefix(kind) for kind in _FILE_SOURCES if value.startswith(kind)), value)
        if path.startswith(("/", "~", "\\")) or ".." in PurePosixPath(path).parts:
            raise InvalidRequest(
                f"recipe: '{value}' leaves the folder of job inputs; give a path inside it", "recipe"
            )


def _content(text: str) -> Any:
    if len(text.encode()) > MAX_BYTES:
        raise InvalidRequest(f"recipe: over {MAX_BYTES:,} bytes; a recipe is a page of YAML", "recipe")
    try:
        _check_shape(text)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidRequest(f"recipe: not valid YAML: {reason}", "recipe") from None
    if not isinstance(content, dict) or "model" not in content:
        raise InvalidRequest("recipe: send a mapping with at least the key 'model'", "recipe")
    return content


def _check_shape(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        # An alias can make a text of a kilobyte mean a terabyte.
        if isinstance(event, yaml.AliasEvent):
            raise InvalidRequest("recipe: YAML aliases are not taken; write the values out", "recipe")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise InvalidRequest(
                f"recipe: nested over {MAX_DEPTH} deep; a recipe is a page of YAML", "recipe"
            )


def _strings(value: Any) -> Iterator[str]:
    """Every string in it, the keys too. Raises InvalidRequest for what is neither text nor number."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            for part in pair:
                yield from _strings(part)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _strings(item)
    elif not isinstance(value, _PLAIN):
        # What reads the recipe takes bytes for a text: `!!binary` could spell out anything unseen.
        raise InvalidRequest(
            f"recipe: a value is {type(value).__name__}; send texts, numbers, lists and mappings alone",
            "recipe",
        )
