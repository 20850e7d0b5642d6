"""What a compression method is, and how the pipeline finds it.

A method is a folder beside this file: `compress/prune/` holds `step.py`, which calls `register` at import.
Nothing else names it. A `step.py` is read whenever a recipe is, so heavy imports belong inside its functions.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

import compress
from compress.artifact import GraphArtifact
from compress.errors import StepError
from runtime.manifest import Task
from runtime.processing import Array

if TYPE_CHECKING:
    from models.sources.source import SourceModel

Figures = dict[str, Any]


class StepConfig(BaseModel):
    """Base of every method's settings: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str

    @property
    def variant(self) -> str:
        """What this step adds to the bundle's variant name."""
        return self.method

    @property
    def closes_weights(self) -> str | None:
        """Why no later step may change the torch model, and what to do; None where one may."""
        return None


def _no_labels(before: GraphArtifact, after: GraphArtifact, examples: int) -> float:
    raise StepError("this step judges its result, and there is no labelled data; give 'data' in the recipe")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Where a step gets real inputs from, on demand: most steps need none.

    `drop(before, after, examples)` is how much worse the metric of `after` is on that many examples of the
    training split (the gate's are never shown to a step), in the gate's units.
    """

    draw: Callable[[int], Iterator[dict[str, Array]]]
    drop: Callable[[GraphArtifact, GraphArtifact, int], float] = _no_labels


# (a step, its source, the seed) -> what the source is after the step, or None where its structure hangs on
# weights; raises what the step refuses of any source of that structure. Its module may be changed.
Rehearsal = Callable[[Any, "SourceModel", int], "SourceModel | None"]

# (a step, one before it) -> why the two cannot stand in that order, and what to do; None where they can.
Conflict = Callable[[Any, StepConfig], str | None]


@dataclass(frozen=True, slots=True)
class GraphMethod:
    """A method that rewrites the exported graph: `run(config, graph, folder, calibration)`.

    It writes the new graph into `folder` and returns it with its figures. `samples(config)` is how many
    training examples it will ask for.
    """

    name: str
    config: Any
    run: Callable[[Any, GraphArtifact, Path, Calibration], tuple[GraphArtifact, Figures]]
    check: Callable[[Any, Task], None] | None = None
    # Whether the result depends on this machine's speed, and so holds for machines like it only.
    timed: bool = False
    conflict: Conflict | None = None
    samples: Callable[[Any], int] = lambda config: 0
    works_on: Literal["graph"] = "graph"


@dataclass(frozen=True, slots=True)
class TorchMethod:
    """A method that changes the torch module before export.

    `run(config, source, seed)` gives the changed source (its module may be the same object, changed) and
    figures. What is cached is the module's weights, so `restore(config, source, shapes)` must give a fresh
    source the same structure (pruned shapes, replaced layers) without the work, `shapes` being the stored
    tensors' by name; None says that the structure stays as it was. `depends(config, seed)` fingerprints what
    the result depends on beside the parent, the settings and the code, such as a second model. `rehearse` is
    what `run` refuses before it trains, on a source whose weights may be random.
    """

    name: str
    config: Any
    run: Callable[[Any, "SourceModel", int], tuple["SourceModel", Figures]]
    restore: Callable[[Any, "SourceModel", Mapping[str, tuple[int, ...]]], "SourceModel"] | None = None
    check: Callable[[Any, Task], None] | None = None
    depends: Callable[[Any, int], str] | None = None
    conflict: Conflict | None = None
    rehearse: Rehearsal | None = None
    works_on: Literal["torch"] = "torch"


Method = GraphMethod | TorchMethod
_methods: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make a method known to recipes by its name."""
    _methods[method.name] = method


def methods() -> Mapping[str, Method]:
    """Every method, by name: those of the folders beside this file, and any registered by the caller."""
    _discover()
    return _methods


def validate(step: Mapping[str, Any]) -> StepConfig:
    """A step's settings, checked. Raises KeyError for an unknown method, pydantic's error for the rest."""
    config: Any = methods()[str(step["method"])].config
    validated: StepConfig = TypeAdapter(config).validate_python(dict(step))
    return validated


@cache
def _discover() -> None:
    for module in pkgutil.iter_modules(compress.__path__):
        folder = Path(compress.__path__[0], module.name)
        if module.ispkg and (folder / "step.py").is_file():
            importlib.import_module(f"compress.{module.name}.step")
