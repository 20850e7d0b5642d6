"""Load-test results, read as the outside files that they are: what the report shows, and all of it checked.

It knows the JSON that `modelpress loadtest --out` writes, not the package that writes it. A file that is not
such a result costs its own row on the page and nothing more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Outside(BaseModel):
    """A part of a file that others write: keys that are not needed are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Percentile(_Outside):
    """Milliseconds, and the upper bound at 99% confidence; neither where there were too few samples."""

    value: Amount | None
    upper_bound: Amount | None = None


class Distribution(_Outside):
    """Percentiles by name, `p50` and so on, those that could not be given among them."""

    percentiles: dict[str, Percentile]

    def at(self, name: str) -> float | None:
        """The percentile of that name in milliseconds, if there is one."""
        found = self.percentiles.get(name)
        return found.value if found else None


class Summary(_Outside):
    """The measured part of a run."""

    requests: int = Field(ge=0)
    failed: int = Field(ge=0)
    throughput_rps: Amount
    tokens_per_s: Amount | None = None
    latency_ms: Distribution | None = None
    ttft_ms: Distribution | None = None


class Generator(_Outside):
    """What the generator asked for, in requests a second."""

    offered_rps: Amount


class LoadTest(_Outside):
    """One run against a served bundle. `invalid` gives the reasons why its figures are no measurement."""

    outcome: str
    invalid: tuple[str, ...] = ()
    summary: Summary
    generator: Generator


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There is a file, but no result in it."""

    reason: str


def read_result(folder: Path | None, tag: str) -> LoadTest | Unreadable | None:
    """The load test of the bundle `tag`; None where there is no such file."""
    if folder is None:
        return None
    path = folder / f"{tag}.json"
    try:
        return LoadTest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unreadable(f"{path.name} cannot be read: {error.strerror}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return Unreadable(
            f"{path.name} is no load-test result: {place + ': ' if place else ''}{first['msg']}"
        )
