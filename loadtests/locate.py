"""Turns a validation error into one line: file, line, key, what is wrong with it.

YAML keeps no positions in the values it loads, so the text is composed a second time, into nodes that know
their lines. That costs a millisecond, and only when there is an error to report.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from loadtests.config import suggest


def explain(error: ValidationError, path: Path, text: str) -> str:
    """The first of the errors in one line: `digits.yaml:7: mix[0].max_token: unknown key …`."""
    details = error.errors()
    first = details[0]
    keys = [*first["loc"], *first.get("ctx", {}).get("at", ())]
    where, line = _find(yaml.compose(text, Loader=yaml.SafeLoader), keys)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{path}:{line}: {where + ': ' if where else ''}{message(first)}{more}"


def message(error: ErrorDetails) -> str:
    """What is wrong, in our words where pydantic's would not help a reader of YAML."""
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        key, valid = context["discriminator"].strip("'"), re.findall(r"'([^']+)'", context["expected_tags"])
        return f"unknown {key} '{context['tag']}'; {suggest(context['tag'], valid)}"
    if error["type"] == "union_tag_not_found":
        return f"the key {error['ctx']['discriminator']} is missing"
    if error["type"] == "missing":
        return f"the key '{error['loc'][-1]}' is missing"
    return error["msg"].removeprefix("Value error, ")


def _find(node: yaml.Node | None, keys: Sequence[str | int]) -> tuple[str, int]:
    """The dotted name and the 1-based line of the deepest node on the way along `keys`.

    Pydantic puts the tag of a discriminated union among the keys; the file has no such level.
    """
    where, line = "", node.start_mark.line + 1 if node else 1
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            where, line = f"{where}[{key}]", node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == str(key):
                    node, line = value, name.start_mark.line + 1
                    where = f"{where}.{key}" if where else str(key)
                    break
    return where, line
