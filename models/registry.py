"""The zoo's register: what each member is, learns from and must reach. Importing it loads no torch.

It builds and trains nothing: `models.zoo.member` does. A member is declared in its family's file under
`models/zoo/catalog/`, and its network lives in the module that `build` names, imported only when wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from models.errors import UnknownModel
from runtime.manifest import Processing, Task
from runtime.suggest import nearest

OptimizerName = Literal["adamw", "lamb", "lars", "adamw-8bit", "paged-adamw"]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How one training run goes. Fractions are of the whole run, in steps or in time, whichever is further.

    `rates` are (part of a parameter's name, learning rate) pairs that take precedence over `learning_rate`.
    `sequence_lengths` are (from this fraction on, tokens) pairs: a step sees the same tokens, cut into rows
    of that length. `max_seconds` shortens the schedule on a slow machine. `evaluate_every` (steps) and
    `patience` (evaluations) stop early. `threads` None is torch's own choice; a small network is faster on
    one, and its weights then do not depend on the number of cores. `precision` auto is bfloat16 where that is
    fast; float16 scales the loss. `augment` names functions of
    `models.augmentation`, applied to each batch in turn.
    """

    steps: int
    batch_size: int
    learning_rate: float
    rates: tuple[tuple[str, float], ...] = ()
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip_norm: float = 1.0
    accumulation: int = 1
    activation_checkpointing: bool = False
    evaluate_every: int = 0
    patience: int = 0
    max_seconds: float | None = None
    sequence_lengths: tuple[tuple[float, int], ...] = ()
    threads: int | None = None
    optimizer: OptimizerName = "adamw"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    augment: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pretraining:
    """A training before the member's own, on the same training split.

    `pretext` ("module:function") takes the fresh module, the data set and the seed, and returns a module that
    holds it (with whatever heads the pretext needs) and the objective to train that by. Where `teacher` names
    a member, the pretext takes that one, trained, as `teacher`.
    """

    pretext: str
    training: TrainingRecipe
    # Not in the text that is hashed: the teacher's own fingerprint is.
    teacher: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One member of the zoo.

    `build` is "module:function"; the function takes `config` as keywords and returns a fresh torch module.
    `floor` is what the trained member must reach on the validation split: a figure of `metric`, or the name
    of a baseline ("bigram", "trigram") computed on the same split. `also` are metrics that are reported
    beside it and decide nothing. `full` is the recipe of `--full`, where the short one does not already train
    to completion. `initialise` ("module:function") takes the fresh module and the training split, for weights
    that start from the data's statistics. `objective` ("module:function", (module, batch) -> loss) replaces
    the task's own, and `processing` the data set's. `tiny` overrides `config` for the smallest network of the
    same design, which no one trains: it is what tests build and export in a second.
    """

    name: str
    family: str
    task: Task
    build: str
    dataset: str
    metric: str
    floor: float | str
    training: TrainingRecipe
    parameters: int
    source: str
    initialise: str | None = None
    objective: str | None = None
    pretraining: Pretraining | None = None
    processing: Processing | None = None
    outputs: tuple[str, ...] = ("logits",)
    also: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    tiny: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    full: TrainingRecipe | None = None
    full_floor: float | str | None = None

    def recipe(self, full: bool) -> TrainingRecipe:
        """The recipe to train by: the complete one where asked for and declared, else the short one."""
        return self.full if full and self.full else self.training

    def floor_of(self, full: bool) -> float | str:
        """The floor that goes with `recipe(full)`."""
        return self.full_floor if full and self.full_floor is not None else self.floor


_members: dict[str, ModelSpec] = {}


def register(spec: ModelSpec) -> ModelSpec:
    """Add `spec` to the zoo. Raises ValueError when its name is taken."""
    if spec.name in _members:
        raise ValueError(f"the zoo already has a model named '{spec.name}'")
    _members[spec.name] = spec
    return spec


def get(name: str) -> ModelSpec:
    """The member called `name`. Raises UnknownModel, suggesting the nearest name."""
    import_module("models.zoo")
    if name in _members:
        return _members[name]
    raise UnknownModel(f"zoo:{name}: the zoo has no such model; {nearest(name, _members)}")


def names() -> tuple[str, ...]:
    """Every member's name, in alphabetical order."""
    import_module("models.zoo")
    return tuple(sorted(_members))
