"""Arrivals that somebody recorded: a CSV with a header, or JSON lines, one request to a line, in order.

The columns that public traces use are known by their names: the time of a request, the lengths of its prompt
and of its answer in tokens, and which entry of the mix it is. Times count from the first line's. A time may
also be a date, as in Azure's traces.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

TIMES = ("timestamp", "time", "arrival_time")
PROMPTS = ("input_length", "input_tokens", "contexttokens", "prompt_tokens")
ANSWERS = ("output_length", "output_tokens", "generatedtokens", "max_tokens")
REQUESTS = ("request",)


@dataclass(frozen=True, slots=True)
class Line:
    """One recorded request. `time` is in the file's own unit, from the first; lengths are in tokens."""

    time: float
    prompt: int | None = None
    answer: int | None = None
    request: int | None = None


def read(path: Path) -> list[Line]:
    """Every line. Raises ValueError, with the line's number, for a file that cannot be replayed."""
    lines: list[Line] = []
    first = latest = None
    for number, fields in _rows(path):
        try:
            line, moment = _parse({str(key).strip().lower(): value for key, value in fields.items()})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        if latest is not None and moment < latest:
            raise ValueError(
                f"{path}:{number}: {moment:g} comes before the line above; sort the trace by time"
            )
        first, latest = moment if first is None else first, moment
        lines.append(Line(moment - first, line.prompt, line.answer, line.request))
    if not lines:
        raise ValueError(f"{path} holds no request")
    return lines


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, text in enumerate(file, 1):
            if text.strip():
                try:
                    document = json.loads(text)
                except ValueError as error:
                    raise ValueError(f"{path}:{number}: not JSON: {error}") from error
                if not isinstance(document, dict):
                    raise ValueError(f"{path}:{number}: not a JSON object")
                yield number, document


def _parse(fields: Mapping[str, Any]) -> tuple[Line, float]:
    time = _pick(fields, TIMES)
    if time is None:
        raise ValueError(f"no time; a column is called {' or '.join(TIMES)}")
    lengths = [
        None if (value := _pick(fields, names)) is None else int(value) for names in (PROMPTS, ANSWERS)
    ]
    request = _pick(fields, REQUESTS)
    prompt, answer = lengths
    line = Line(0.0, prompt, answer, request=None if request is None else int(request))
    return line, _seconds(time)


def _pick(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return datetime.fromisoformat(value).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"{value} is no time")
    return seconds
