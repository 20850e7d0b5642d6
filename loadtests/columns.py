"""Samples as they stand in a document: one list for each field, `null` for what is missing.

Lists of plain numbers, because any tool can read them, and because a column compresses and loads better than
an object for each request.
"""

import math
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from loadtests.samples import Floats, Integers, Samples

Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Columns(BaseModel):
    """One entry of each list for each request that ended, in planned order; times in milliseconds.

    `planned_ms` counts from the start of the warm-up, `row` is the place in the plan, `request` in the mix,
    `rows` how many inputs it carried, `manner` 0 for a normal client, 1 for one that leaves, 2 for a slow
    reader.
    """

    model_config = ConfigDict(frozen=True)

    row: list[Count]
    request: list[Count]
    rows: list[Count]
    manner: list[Count]
    planned_ms: list[float]
    lag_ms: list[float]
    latency_ms: list[float]
    error: list[str | None]
    tokens: list[Count | None]
    ttft_ms: list[float | None]
    itl_ms: list[list[float]]
    error_details: dict[str, str]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """No edit by hand may leave columns of several lengths, or an error that would count as none."""
        columns = {name: value for name, value in self if isinstance(value, list)}
        shortest, longest = (pick(columns, key=lambda name: len(columns[name])) for pick in (min, max))
        if (few := len(columns[shortest])) != (many := len(columns[longest])):
            raise ValueError(f"{shortest} has {few} entries, and {longest} {many}")
        if unknown := set(self.error) - {None, *self.error_details}:
            raise ValueError(f"error_details has no '{min(map(str, unknown))}'")
        return self

    @classmethod
    def of(cls, samples: Samples) -> "Columns":
        """Built without a validation of each number: it is ours."""
        names: list[str | None] = [*samples.kinds, None]
        return cls.model_construct(
            row=samples.row.tolist(),
            request=samples.request.tolist(),
            rows=samples.rows.tolist(),
            manner=samples.manner.tolist(),
            planned_ms=samples.planned_ms.tolist(),
            lag_ms=samples.lag_ms.tolist(),
            latency_ms=samples.latency_ms.tolist(),
            error=[names[kind] for kind in samples.error.tolist()],
            tokens=[None if count < 0 else count for count in samples.tokens.tolist()],
            ttft_ms=[None if math.isnan(value) else value for value in samples.ttft_ms.tolist()],
            itl_ms=_lists(samples),
            error_details=dict(zip(samples.kinds, samples.details, strict=True)),
        )

    def samples(self) -> Samples:
        """The same as arrays."""
        kinds = list(self.error_details)
        numbers: dict[str | None, int] = {kind: number for number, kind in enumerate(kinds)}
        return Samples(
            row=_integers(self.row),
            request=_integers(self.request),
            rows=_integers(self.rows),
            manner=_integers(self.manner),
            planned_ms=_floats(self.planned_ms),
            lag_ms=_floats(self.lag_ms),
            latency_ms=_floats(self.latency_ms),
            ttft_ms=_floats(self.ttft_ms),
            tokens=_integers([-1 if count is None else count for count in self.tokens]),
            error=_integers([numbers.get(kind, -1) for kind in self.error]),
            gaps_ms=_floats([gap for gaps in self.itl_ms for gap in gaps]),
            gap_counts=_integers([len(gaps) for gaps in self.itl_ms]),
            kinds=tuple(kinds),
            details=tuple(self.error_details.values()),
        )


def _lists(samples: Samples) -> list[list[float]]:
    gaps, ends = samples.gaps_ms.tolist(), np.cumsum(samples.gap_counts).tolist()
    return [gaps[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _floats(values: list[Any]) -> Floats:
    return np.array(values, dtype=np.float64)


def _integers(values: list[int]) -> Integers:
    return np.array(values, dtype=np.int64)
