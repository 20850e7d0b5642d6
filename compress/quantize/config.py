"""What a recipe's `quantize` step may say, one class a scheme. No heavy import: recipes are read with it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from compress.step import StepConfig


class CalibrationConfig(BaseModel):
    """How activation ranges are found: over `samples` real inputs, by `observer`.

    `percentile` is the share of values that the range keeps, for the observer of that name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=256, ge=1)
    observer: Literal["minmax", "entropy", "percentile"] = "minmax"
    percentile: float = Field(default=99.99, gt=50, le=100)


class _Quantize(StepConfig):
    method: Literal["quantize"] = "quantize"
    scheme: str

    @property
    def variant(self) -> str:
        return self.scheme


class Int8Dynamic(_Quantize):
    """int8 weights; activations quantized as they come. For transformers and recurrent nets.

    `reduce_range` keeps weights to 7 bits, so that the 16-bit accumulators of CPUs without VNNI never
    saturate: a bundle then answers alike on every machine.
    """

    scheme: Literal["int8-dynamic"]
    per_channel: bool = True
    reduce_range: bool = True


class Int8Static(_Quantize):
    """int8 weights and activations, with ranges from calibration data. For convolutional nets.

    A convolution over fewer than `min_channels` input channels keeps float32 arithmetic on int8 weights:
    `benchmarks/int8_convolution.py` shows where int8 kernels start to pay.
    """

    scheme: Literal["int8-static"]
    per_channel: bool = True
    reduce_range: bool = True
    min_channels: int = Field(default=32, ge=1)
    calibration: CalibrationConfig = CalibrationConfig()


class Int4(_Quantize):
    """Weight-only: 4 bits a weight in groups along the input axis, each with a scale and a zero point.

    Embeddings and the output head are more sensitive and get `head_bits`. `accuracy_level` 4 lets the kernel
    quantize activations to int8 (the fast path); 0 keeps them in float32.
    """

    scheme: Literal["int4"]
    group_size: Literal[16, 32, 64, 128] = 32
    head_bits: Literal[4, 8] = 8
    accuracy_level: Literal[0, 4] = 4


class Fp16(_Quantize):
    """Weights stored in half precision, computed in float32.

    CPUs have no half-precision matrix kernels in onnxruntime: this halves the file at the speed of float32.
    """

    scheme: Literal["fp16"]


QuantizeConfig = Annotated[Int8Dynamic | Int8Static | Int4 | Fp16, Field(discriminator="scheme")]
