"""What a recipe's `qat` step may say. No heavy import: recipes are read with it."""

from typing import Literal

from pydantic import Field

from compress.finetune import FinetuneConfig
from compress.step import StepConfig


class QatTraining(FinetuneConfig):
    """How long and how fast the network learns to live with its rounding; gently: it is trained already."""

    learning_rate: float = Field(default=1e-4, gt=0)


class QatConfig(StepConfig):
    """Fine-tuning with weights and activations rounded to int8 in the forward pass, then int8 for good.

    `ranges`: `learned` trains every scale by the loss (LSQ); `moving-average` follows the smallest and the
    largest activation seen, and the weights' own largest. Both start from `samples` real inputs. `targets`
    and `exclude` are shell patterns over layer names. `reduce_range` keeps weights to 7 bits, so that CPUs
    without VNNI never overflow; a convolution over fewer than `min_channels` input channels keeps float32
    arithmetic on int8 weights (both as in `quantize: int8-static`).
    """

    method: Literal["qat"]
    ranges: Literal["learned", "moving-average"] = "learned"
    targets: tuple[str, ...] = Field(default=("*",), min_length=1)
    exclude: tuple[str, ...] = ()
    samples: int = Field(default=128, ge=1)
    reduce_range: bool = True
    min_channels: int = Field(default=32, ge=1)
    finetune: QatTraining = QatTraining()

    @property
    def closes_weights(self) -> str | None:
        return "'qat' leaves integers for weights; put 'qat' last of those that change the model"
