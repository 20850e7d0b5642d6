"""What a recipe's `shrink` step may say. No heavy import: recipes are read with it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compress.finetune import FinetuneConfig
from compress.step import StepConfig

Kind = Literal["channels", "ffn", "heads", "layers"]
Ratio = Annotated[float, Field(gt=0, lt=1)]


class RemoveConfig(BaseModel):
    """The share of each kind of unit that goes; a kind that is not named stays whole.

    `channels` (convolution channels and linear neurons) is for traceable feed-forward nets; `ffn` (neurons of
    the feed-forward blocks), `heads` (key-value heads, each with all its query heads) and `layers` are for
    transformers. `flops` instead is the share of the multiply-accumulates that goes at least, by one ratio of
    the channels, or of the neurons and heads together, that is searched for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Ratio | None = None
    ffn: Ratio | None = None
    heads: Ratio | None = None
    layers: Ratio | None = None
    flops: Ratio | None = None

    @model_validator(mode="after")
    def _something_of_one_family(self) -> "RemoveConfig":
        asked = self.ratios()
        if not asked and self.flops is None:
            raise ValueError("say what to remove: channels, or ffn, heads and layers; or flops")
        if asked and self.flops is not None:
            raise ValueError("'flops' finds the ratios of the other kinds itself; give one or the other")
        if "channels" in asked and len(asked) > 1:
            raise ValueError(
                "channels are of convolutional nets, ffn, heads and layers of transformers; one or the other"
            )
        return self

    def ratios(self) -> dict[Kind, float]:
        """The kinds that are asked for, with their ratio."""
        kinds: tuple[Kind, ...] = ("channels", "ffn", "heads", "layers")
        return {kind: ratio for kind in kinds if (ratio := getattr(self, kind)) is not None}


class SamplesConfig(BaseModel):
    """How many training examples `taylor` and `activation` look at, in batches of `batch_size`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=256, ge=1)
    batch_size: int = Field(default=16, ge=1)


class ShrinkConfig(StepConfig):
    """Which units go, by what importance, ranked where; then an optional fine-tuning of what is left.

    `scope` layer takes the same share of every layer, global ranks all units of a kind together; no layer is
    ever emptied. `round_to` keeps widths a multiple (rounded up, so that less may go than asked); heads and
    layers ignore it.
    """

    method: Literal["shrink"] = "shrink"
    remove: RemoveConfig
    importance: Literal["magnitude", "taylor", "activation"] = "magnitude"
    scope: Literal["layer", "global"] = "layer"
    round_to: int = Field(default=1, ge=1)
    calibration: SamplesConfig = SamplesConfig()
    finetune: FinetuneConfig | None = None
