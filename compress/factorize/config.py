"""What a recipe's `factorize` step may say. No heavy import: recipes are read with it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compress.finetune import FinetuneConfig
from compress.step import StepConfig


class CalibrationConfig(BaseModel):
    """How many training inputs the activations are seen on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=128, ge=1)


class FactorizeConfig(StepConfig):
    """Linear layers as products of two thin ones, each only where that saves parameters.

    `algorithm` says what the rank is spent on: the weight itself (`svd`), the weight with each input scaled
    by how large its activations are (`asvd`), or the layer's output on calibration data (`svd-llm`). Exactly
    one of: `energy`, the share of the squared singular values that each layer keeps; `ratio`, the share of
    its parameters; `rank`. `targets` and `exclude` are patterns over module names.
    """

    method: Literal["factorize"] = "factorize"
    algorithm: Literal["svd", "asvd", "svd-llm"] = "svd"
    energy: float | None = Field(default=None, gt=0, lt=1)
    ratio: float | None = Field(default=None, gt=0, lt=1)
    rank: int | None = Field(default=None, ge=1)
    targets: tuple[str, ...] = Field(default=("*",), min_length=1)
    exclude: tuple[str, ...] = ()
    calibration: CalibrationConfig = CalibrationConfig()
    finetune: FinetuneConfig | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> "FactorizeConfig":
        if sum(measure is not None for measure in (self.energy, self.ratio, self.rank)) != 1:
            raise ValueError("give exactly one of 'energy', 'ratio' and 'rank'")
        return self
