"""What a recipe's `quantize` step may say, one class a scheme. No heavy import: recipes are read with it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from compress.step import StepConfig


class CalibrationConfig(BaseModel):
    """How activation ranges are found: over `samples` real inputs, by `observer`.

    `minmax` keeps all that was seen; `mse` clips where that lowers the squared error, `entropy` where the
    distribution is kept best (Kullback-Leibler divergence).
    `percentile` is the share of values that the range keeps, for the observer of that name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=256, ge=1)
    observer: Literal["minmax", "mse", "entropy", "percentile"] = "minmax"
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


class GptqConfig(BaseModel):
    """How GPTQ works: on `samples` real inputs (windows of tokens, for a decoder).

    `damping` is the share of the mean added to the Hessian's diagonal: more where few samples leave it nearly
    singular. `act_order` rounds the inputs with the most energy first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=128, ge=1)
    damping: float = Field(default=0.01, gt=0, le=1)
    act_order: bool = False


class Int4(_Quantize):
    """Weight-only: 4 bits a weight in groups along the input axis, each with a scale and a zero point.

    `algorithm` finds the integers: `rtn` rounds to nearest in the range of least squared error, `hqq` fits
    the many weights rather than the few outliers, `gptq` makes good each rounding by the weights after it and
    needs calibration data. Embeddings and the output head are more sensitive and get `head_bits`.
    `accuracy_level` 4 lets the kernel quantize activations to int8 (the fast path); 0 keeps them in float32.
    """

    scheme: Literal["int4"]
    algorithm: Literal["rtn", "hqq", "gptq"] = "rtn"
    group_size: Literal[16, 32, 64, 128] = 32
    head_bits: Literal[4, 8] = 8
    accuracy_level: Literal[0, 4] = 4
    gptq: GptqConfig = GptqConfig()

    @property
    def variant(self) -> str:
        return self.scheme if self.algorithm == "rtn" else f"{self.scheme}-{self.algorithm}"

    @field_validator("gptq")
    @classmethod
    def _only_for_gptq(cls, value: GptqConfig, info: ValidationInfo) -> GptqConfig:
        if info.data.get("algorithm") not in ("gptq", None):
            raise ValueError("these settings are read by 'algorithm: gptq' only; add it, or remove them")
        return value


class Bnb4(_Quantize):
    """bitsandbytes' 4-bit storage, bit for bit: what a QLoRA was trained over is what is served.

    nf4 is for weights that are normally distributed, fp4 a tiny floating point; each block of `block_size`
    weights has one float32 scale. `head_bits` 32 leaves embeddings and the output head as they are, as
    bitsandbytes does; 8 stores them group-wise. The kernel unpacks the matrix on every call: small, not fast.
    """

    scheme: Literal["nf4", "fp4"]
    block_size: Literal[64, 128, 256] = 64
    head_bits: Literal[8, 32] = 8


class Fp16(_Quantize):
    """Weights stored in half precision, computed in float32.

    CPUs have no half-precision matrix kernels in onnxruntime: this halves the file at the speed of float32.
    """

    scheme: Literal["fp16"]


Scheme = Int8Dynamic | Int8Static | Int4 | Bnb4 | Fp16
QuantizeConfig = Annotated[Scheme, Field(discriminator="scheme")]
