"""What a recipe's `prune` step may say, one class a criterion. No heavy import: recipes are read with it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from compress.finetune import FinetuneConfig
from compress.step import StepConfig


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pattern(_Settings):
    """At most `n` weights of every `m` along the input axis are kept: 2 of 4 is what sparse kernels read."""

    n: int = Field(default=2, ge=1)
    m: int = Field(default=4, ge=2, le=64)

    @field_validator("m")
    @classmethod
    def _is_wider(cls, m: int, info: ValidationInfo) -> int:
        if m <= info.data.get("n", 0):
            raise PydanticCustomError("pattern", "must be larger than n, or nothing is pruned")
        return m


class Gradual(_Settings):
    """Prune in `events` steps of a cubic schedule instead of at once, over the first `until` of fine-tuning.

    Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878, equation 1.
    """

    events: int = Field(default=10, ge=2)
    until: float = Field(default=0.6, gt=0, le=1)


class CalibrationConfig(_Settings):
    """How many real inputs of the training split the layers' inputs are collected over."""

    samples: int = Field(default=128, ge=1)


class _Prune(StepConfig):
    """What every criterion has. `targets` and `exclude` are shell patterns over the layers' names.

    With `finetune`, the network is trained afterwards while pruned weights stay exactly zero.
    """

    method: Literal["prune"] = "prune"
    criterion: str
    targets: tuple[str, ...] = Field(default=("*",), min_length=1)
    exclude: tuple[str, ...] = ()
    finetune: FinetuneConfig | None = None


Ratio = Annotated[float, Field(gt=0, lt=1)]


class Magnitude(_Prune):
    """The smallest weights go: `ratio` of all (`global`), or of each layer (`layer`).

    `global` keeps more where weights are large, and prunes better at high ratios; `layer` is predictable.
    """

    criterion: Literal["magnitude"]
    ratio: Ratio = 0.5
    scope: Literal["global", "layer"] = "global"
    gradual: Gradual | None = None

    @field_validator("gradual")
    @classmethod
    def _has_steps(cls, gradual: Gradual | None, info: ValidationInfo) -> Gradual | None:
        if gradual is None or "finetune" not in info.data:
            return gradual
        finetune = info.data["finetune"]
        if finetune is None:
            raise PydanticCustomError("gradual", "happens during fine-tuning; add 'finetune'")
        if gradual.events > gradual.until * finetune.steps:
            raise PydanticCustomError(
                "gradual", "more events than steps to hold them; lower 'events' or raise 'finetune.steps'"
            )
        return gradual

    @property
    def variant(self) -> str:
        return f"{self.criterion}-{_percent(self.ratio)}"


class Movement(_Prune):
    """Weights that fine-tuning moves towards zero go, in `gradual` events; for pretrained models."""

    criterion: Literal["movement"]
    ratio: Ratio = 0.5
    scope: Literal["global", "layer"] = "global"
    gradual: Gradual = Gradual()
    finetune: FinetuneConfig = FinetuneConfig()

    @field_validator("finetune")
    @classmethod
    def _holds_events(cls, finetune: FinetuneConfig, info: ValidationInfo) -> FinetuneConfig:
        gradual = info.data.get("gradual")
        if gradual and gradual.events > gradual.until * finetune.steps:
            raise PydanticCustomError("finetune", "more gradual events than steps; raise 'steps'")
        return finetune

    @property
    def variant(self) -> str:
        return f"{self.criterion}-{_percent(self.ratio)}"


class Rewind(_Settings):
    """Back to the weights after `steps` of a training from its start; 0 is the very beginning.

    The start is fresh weights, or the model's own where a layer does not say how it is initialised.
    """

    steps: int = Field(default=0, ge=0)


class Iterative(_Prune):
    """By magnitude in `rounds`, each dropping the same share of what is left, with a training after each.

    With `rewind`, survivors go back to their early weights after each round: the search for a lottery ticket.
    """

    criterion: Literal["iterative"]
    ratio: Ratio = 0.9
    rounds: int = Field(default=5, ge=2)
    scope: Literal["global", "layer"] = "global"
    finetune: FinetuneConfig = FinetuneConfig()
    rewind: Rewind | None = None

    @property
    def variant(self) -> str:
        return f"{'ticket' if self.rewind else self.criterion}-{_percent(self.ratio)}"


class NM(_Prune):
    """The smallest weights of each group of `m` go, so that `n` stay."""

    criterion: Literal["nm"]
    pattern: Pattern = Pattern()

    @property
    def variant(self) -> str:
        return f"{self.pattern.n}of{self.pattern.m}"


class _OneShot(_Prune):
    """Prunes linear layers against real inputs: `ratio` of each, or a `pattern`; by default half."""

    calibration: CalibrationConfig = CalibrationConfig()
    ratio: Ratio | None = None
    pattern: Pattern | None = None

    @field_validator("pattern")
    @classmethod
    def _is_alone(cls, pattern: Pattern | None, info: ValidationInfo) -> Pattern | None:
        if pattern is not None and info.data.get("ratio") is not None:
            raise PydanticCustomError("pattern", "give either 'ratio' or 'pattern', not both")
        return pattern

    @property
    def amount(self) -> float | Pattern:
        """How much goes."""
        return self.pattern or self.ratio or 0.5

    @property
    def variant(self) -> str:
        amount = self.amount
        how_much = f"{amount.n}of{amount.m}" if isinstance(amount, Pattern) else _percent(amount)
        return f"{self.criterion}-{how_much}"


class Wanda(_OneShot):
    """|weight| times the norm of its input, compared along each output row; nothing is updated."""

    criterion: Literal["wanda"]


class SparseGPT(_OneShot):
    """Optimal brain surgeon: what is left makes up for what is pruned.

    `damping`, a share of the mean of the Hessian's diagonal, keeps its inverse stable. Which weights go is
    decided once every `block_size` inputs, on weights already corrected for the earlier ones.
    """

    criterion: Literal["sparsegpt"]
    damping: float = Field(default=0.01, gt=0, le=1)
    block_size: int = Field(default=128, ge=1)

    @field_validator("block_size")
    @classmethod
    def _holds_groups(cls, block_size: int, info: ValidationInfo) -> int:
        pattern = info.data.get("pattern")
        if pattern is not None and block_size % pattern.m:
            raise PydanticCustomError("block", "must be a multiple of the pattern's m")
        return block_size


PruneConfig = Annotated[
    Magnitude | Movement | Iterative | NM | Wanda | SparseGPT, Field(discriminator="criterion")
]


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.4g}"
