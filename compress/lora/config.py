"""What a recipe's `lora` step may say. No heavy import: recipes are read with it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from compress.finetune import FinetuneConfig
from compress.step import StepConfig


class BaseConfig(BaseModel):
    """QLoRA (Dettmers et al., arXiv:2305.14314): frozen weights are bitsandbytes' 4 bits while training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Literal["nf4", "fp4"] = "nf4"
    block_size: Literal[64, 128, 256] = 64


class LoraConfig(StepConfig):
    """Low-rank adapters (Hu et al., arXiv:2106.09685) on the linear layers that `targets` match.

    `quantized_base` trains over 4-bit weights. `dora` also learns each output's magnitude (Liu et al.,
    arXiv:2402.09353). With `merge` the adapter becomes part of the weights, in float32; without it, it ships
    beside them as `name`, and a server takes more of them over the same base.
    """

    method: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(default=("*",), min_length=1)
    exclude: tuple[str, ...] = ()
    quantized_base: BaseConfig | None = None
    dora: bool = False
    merge: bool = True
    name: str = Field(default="adapter", pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    training: FinetuneConfig = FinetuneConfig()

    @field_validator("merge")
    @classmethod
    def _dora_merges(cls, merge: bool, info: ValidationInfo) -> bool:
        if not merge and info.data.get("dora"):
            raise PydanticCustomError(
                "merge", "a DoRA rescales the base's own outputs and cannot stand beside it; merge it"
            )
        return merge

    @property
    def closes_weights(self) -> str | None:
        if self.merge:
            return None
        return "the adapter of 'lora' was trained beside these weights; put 'lora' last, or use 'merge: true'"

    @property
    def variant(self) -> str:
        return "q" * bool(self.quantized_base) + ("dora" if self.dora else "lora")
