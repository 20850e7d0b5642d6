"""A scenario: which requests, how often, for how long, and what is promised. Read from YAML, checked once.

A scenario knows nothing of the server's address: the same file measures any deployment. `load` is the only
function here that touches the file system.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loadtests import locate, schedule
from loadtests.address import API_KEY_VARIABLE
from loadtests.config import Config, complaint, suggest
from loadtests.dialects import Request, takes_sizes
from loadtests.errors import InvalidOption, InvalidScenario
from loadtests.files import is_recorded
from loadtests.objectives import Objectives, limits
from loadtests.schedule import Arrivals, TraceArrivals

SHIPPED = Path(__file__).parent / "scenarios"

DEFAULT_DURATION = 10.0

# A field name of HTTP (RFC 9110, 5.6.2).
TOKEN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"


class Scenario(Config):
    """Seconds throughout. The measured `duration` begins after `warmup`, which is sent but not counted.

    Without a `duration`, arrivals that have a length of their own (stages, traces, a number of requests) take
    that, and others 10 s. `warmup: auto` measures from where the server is found to have settled.
    `metrics` is where the server tells about itself.
    """

    arrivals: Arrivals
    duration: PositiveFloat | None = None
    warmup: NonNegativeFloat | Literal["auto"] = 1.0
    seed: NonNegativeInt = 0
    timeout: PositiveFloat = 30.0
    headers: dict[str, str] = Field(default_factory=dict)
    key_header: str = Field(default="Authorization", pattern=TOKEN)
    metrics: str | None = Field(default="/metrics", pattern="^/")
    mix: tuple[Request, ...] = Field(min_length=1)
    objectives: Objectives = Objectives()

    @property
    def fixed_warmup(self) -> float:
        return 0.0 if self.warmup == "auto" else self.warmup

    @property
    def span(self) -> float:
        """From the first send to the last; infinite where a number of requests decides."""
        if self.duration is not None:
            return self.fixed_warmup + self.duration
        if schedule.limit(self.arrivals) is not None:
            return math.inf
        return schedule.own_length(self.arrivals) or self.fixed_warmup + DEFAULT_DURATION

    @property
    def measured_s(self) -> float:
        return self.span - self.fixed_warmup

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not re.match(TOKEN, name) or not value.isprintable() or not value.isascii():
                raise ValueError(f"'{name}' and its value are no header")
            if name.lower() in ("authorization", "content-length", "host", "transfer-encoding"):
                raise ValueError(f"{name} is set by us; a key goes into {API_KEY_VARIABLE}, see key_header")
        return headers

    @model_validator(mode="after")
    def _objectives_have_a_measure(self) -> Self:
        streams = any(getattr(request, "stream", False) for request in self.mix)
        for limit in limits(self.objectives):
            if limit.measure in ("ttft", "tpot", "itl") and not streams:
                raise complaint("no request in the mix streams tokens", at=("objectives", limit.name))
            if limit.measure == "query" and schedule.at_once(self.arrivals) == 1:
                raise complaint("only multi-stream arrivals have queries", at=("objectives", limit.name))
        return self

    @model_validator(mode="after")
    def _settles(self) -> Self:
        if self.warmup == "auto" and schedule.changes(self.arrivals):
            raise complaint(f"{self.arrivals.kind} arrivals never settle; give seconds", at=("warmup",))
        return self

    @model_validator(mode="after")
    def _trace_fits_the_mix(self, info: ValidationInfo) -> Self:
        if not isinstance(self.arrivals, TraceArrivals) or is_recorded(info):
            return self
        lines = self.arrivals.lines
        for number, line in enumerate(lines, 1):
            if line.request is not None and not 0 <= line.request < len(self.mix):
                raise complaint(
                    f"request {number} is of entry {line.request}, which the mix lacks", at=("mix",)
                )
        if any(line.prompt or line.answer for line in lines) and not all(map(takes_sizes, self.mix)):
            raise complaint("the trace has sizes, which only `generated` prompts can take", at=("mix",))
        return self


def load(name: Path) -> Scenario:
    """Read a scenario file, or one that comes with the package by its name. Raises InvalidScenario."""
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidScenario(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise InvalidScenario(_yaml_error(error, path)) from error
    if not isinstance(document, dict):
        raise InvalidScenario(f"{path}: a scenario is a mapping with the keys arrivals, mix, …")
    try:
        return Scenario.model_validate(document, context={"folder": path.parent})
    except ValidationError as error:
        raise InvalidScenario(locate.explain(error, path, text)) from error


def find(name: Path) -> Path:
    """The file itself, else the shipped scenario of that name. Raises InvalidScenario."""
    shipped = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    if name.is_file():
        return name
    if str(name) in shipped:
        return shipped[str(name)]
    raise InvalidScenario(f"no scenario file {name}; of the shipped ones, {suggest(name.stem, shipped)}")


def override(
    scenario: Scenario,
    rate: float | None = None,
    duration: float | None = None,
    seed: int | None = None,
    model: str | None = None,
) -> Scenario:
    """The scenario with what the command line changes. Raises InvalidOption."""
    given = {"duration": duration, "seed": seed, "arrivals.rate": rate}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if rate is not None and not hasattr(scenario.arrivals, "rate"):
        raise InvalidOption(f"--rate: {scenario.arrivals.kind} arrivals have no rate to change")
    if model is not None:
        changes["mix"] = _rename_models(scenario.model_dump(exclude_unset=True)["mix"], model)
    return changed(scenario, changes)


def changed(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """The scenario with other values under dotted keys. Raises InvalidOption."""
    document = scenario.model_dump(exclude_unset=True)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = document
        for name in path:
            place = place[name]
        place[last] = value
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = [*first["loc"], *first.get("ctx", {}).get("at", ())][-1]
        option = f"--{key}" if key in {name.rpartition(".")[2] for name in changes} else key
        raise InvalidOption(f"{option}: {locate.message(first)}") from error


def _rename_models(mix: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Let every entry of the mix that names a model name this one."""
    named = [entry for entry in mix if "model" in entry]
    if not named:
        raise InvalidOption("--model: no request in the scenario names a model")
    for entry in named:
        entry["model"] = model
    return mix


def _yaml_error(error: yaml.YAMLError, path: Path) -> str:
    """One line for a file that is not YAML."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{path}:{mark.line + 1 if mark else 1}: not YAML: {problem}"
