"""A scenario: which requests, how often, for how long, and what is promised. Read from YAML, checked once.

A scenario knows nothing of the server's address: the same file measures any deployment. `load` is the only
function here that touches the file system.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, ValidationError, model_validator

from loadtests import locate
from loadtests.config import Config, complaint, suggest
from loadtests.dialects import Request
from loadtests.errors import InvalidOption, InvalidScenario
from loadtests.objectives import Objectives, limits

SHIPPED = Path(__file__).parent / "scenarios"


class PoissonArrivals(Config):
    """Independent arrivals, as from many users who know nothing of each other; on average `rate` a second."""

    kind: Literal["poisson"]
    rate: PositiveFloat


class ConstantArrivals(Config):
    """Evenly spaced arrivals: exactly `rate` per second, the kindest load there is."""

    kind: Literal["constant"]
    rate: PositiveFloat


Arrivals = Annotated[PoissonArrivals | ConstantArrivals, Field(discriminator="kind")]


class Scenario(Config):
    """Seconds throughout. The measured `duration` begins after `warmup`, which is sent but not counted."""

    arrivals: Arrivals
    duration: PositiveFloat = 10.0
    warmup: NonNegativeFloat = 1.0
    seed: NonNegativeInt = 0
    timeout: PositiveFloat = 30.0
    mix: tuple[Request, ...] = Field(min_length=1)
    objectives: Objectives = Objectives()

    @model_validator(mode="after")
    def _objectives_have_a_measure(self) -> Self:
        streams = any(getattr(request, "stream", False) for request in self.mix)
        for limit in limits(self.objectives):
            if limit.measure != "latency" and not streams:
                raise complaint("no request in the mix streams tokens", at=("objectives", limit.name))
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
    document = scenario.model_dump()
    changes = {"duration": duration, "seed": seed}
    document |= {key: value for key, value in changes.items() if value is not None}
    if rate is not None:
        document["arrivals"]["rate"] = rate
    if model is not None:
        _rename_models(document["mix"], model)
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidOption(f"--{first['loc'][-1]}: {locate.message(first)}") from error


def _rename_models(mix: list[dict[str, Any]], model: str) -> None:
    """Let every entry of the mix that names a model name this one."""
    named = [entry for entry in mix if "model" in entry]
    if not named:
        raise InvalidOption("--model: no request in the scenario names a model")
    for entry in named:
        entry["model"] = model


def _yaml_error(error: yaml.YAMLError, path: Path) -> str:
    """One line for a file that is not YAML."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{path}:{mark.line + 1 if mark else 1}: not YAML: {problem}"
