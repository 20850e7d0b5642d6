"""What a recipe's `quantize` step may say, one class a scheme. No heavy import: recipes are read with it."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

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


class SmoothConfig(BaseModel):
    """SmoothQuant before int8: outliers that `samples` real inputs show move into the weights.

    `alpha` is how much of them moves; more where activations are the harder side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(default=0.5, gt=0, lt=1)
    samples: int = Field(default=128, ge=1)


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
    smooth: SmoothConfig | None = None

    @property
    def variant(self) -> str:
        return f"{self.scheme}-smooth" if self.smooth else self.scheme


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
    smooth: SmoothConfig | None = None

    @property
    def variant(self) -> str:
        return f"{self.scheme}-smooth" if self.smooth else self.scheme


class LlmInt8(_Quantize):
    """LLM.int8: as `int8-dynamic`, but inputs with outliers are multiplied in float32.

    Inputs of a layer that reach `threshold` in magnitude on `samples` real inputs (windows of tokens, for a
    decoder) are its outliers; 6 is the paper's. Each layer that has some gets a second, thin product.
    """

    scheme: Literal["llm-int8"]
    threshold: float = Field(default=6.0, gt=0)
    samples: int = Field(default=32, ge=1)
    per_channel: bool = True
    reduce_range: bool = True


class GptqConfig(BaseModel):
    """How GPTQ works: on `samples` real inputs (windows of tokens, for a decoder).

    `damping` is the share of the mean added to the Hessian's diagonal: more where few samples leave it nearly
    singular. `act_order` rounds the inputs with the most energy first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=128, ge=1)
    damping: float = Field(default=0.01, gt=0, le=1)
    act_order: bool = False


class AwqConfig(BaseModel):
    """On how many real inputs (windows of tokens, for a decoder) AWQ searches its scales."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=128, ge=1)


class WeightOnly(_Quantize):
    """Groups of weights along the input axis, each with a scale and a zero point; activations in float32.

    `algorithm` finds the integers: `rtn` rounds to nearest in the range of least squared error, `hqq` fits
    the many weights rather than the few outliers, `gptq` makes good each rounding by the weights after it,
    `awq` scales up the weights of strong inputs first; the last two need calibration data. Embeddings and the
    output head are more sensitive and get `head_bits`.
    `accuracy_level` 4 lets the kernel quantize activations to int8 (the fast path); 0 keeps them in float32.
    """

    algorithm: Literal["rtn", "hqq", "gptq", "awq"] = "rtn"
    group_size: Literal[16, 32, 64, 128] = 32
    head_bits: Literal[4, 8] = 8
    accuracy_level: Literal[0, 4] = 4
    gptq: GptqConfig = GptqConfig()
    awq: AwqConfig = AwqConfig()

    @property
    def variant(self) -> str:
        return self.scheme if self.algorithm == "rtn" else f"{self.scheme}-{self.algorithm}"

    @property
    def bits(self) -> int:
        """Bits a weight of the layers between."""
        return 4 if self.scheme == "int4" else 8

    @property
    def samples(self) -> int:
        """Real inputs that the algorithm looks at."""
        asked = {"gptq": self.gptq.samples, "awq": self.awq.samples}
        return asked.get(self.algorithm, 0)

    @model_serializer(mode="wrap")
    def _what_is_read(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings of other algorithms are no part of a lineage, and a recipe that has them is refused."""
        unread = {"gptq", "awq"} - {self.algorithm}
        return {name: value for name, value in serialize(self).items() if name not in unread}

    @field_validator("gptq", "awq")
    @classmethod
    def _is_read(cls, value: BaseModel, info: ValidationInfo) -> BaseModel:
        if info.data.get("algorithm") not in (info.field_name, None):
            raise ValueError(
                f"these settings are read by 'algorithm: {info.field_name}' only; add it, or remove them"
            )
        return value


class Int4(WeightOnly):
    """Weight-only, 4 bits a weight: the smallest, and the fastest for one sequence at a time."""

    scheme: Literal["int4"]


class Int8WeightOnly(WeightOnly):
    """Weight-only, 8 bits a weight: hardly a loss at a quarter of the size."""

    scheme: Literal["int8-weight-only"]


class Budget(BaseModel):
    """How large the weights may be together, or how much worse the model: exactly one of the two.

    `bits` a weight as stored, scales included. `max_drop` of the metric, in the units of the recipe's gate,
    as measured on `examples` of the training split: the smallest graph that keeps to it is made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: float | None = Field(default=None, gt=0, le=16)
    max_drop: float | None = Field(default=None, gt=0)
    examples: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.bits is None) == (self.max_drop is None):
            raise ValueError("give either 'bits' or 'max_drop'")
        return self


class Mixed(_Quantize):
    """Weight-only, each weight in 4, 8 or 16 bits: the assignment that does the least damage within a budget.

    What each weight costs in each format is measured on `samples` real inputs (windows of tokens, for a
    decoder), embeddings and the output head included. `accuracy_level` is that of `int4`.
    """

    scheme: Literal["mixed"]
    budget: Budget
    group_size: Literal[16, 32, 64, 128] = 64
    samples: int = Field(default=8, ge=1)
    accuracy_level: Literal[0, 4] = 4

    @property
    def variant(self) -> str:
        budget = self.budget
        return f"{self.scheme}-{budget.bits:g}" if budget.bits else f"{self.scheme}-drop-{budget.max_drop:g}"


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
    """Weights stored in half precision, computed in float32: fp16, or bf16, whose range is float32's.

    CPUs have no half-precision matrix kernels in onnxruntime: this halves the file at the speed of float32.
    """

    scheme: Literal["fp16", "bf16"]


Scheme = Int8Dynamic | Int8Static | LlmInt8 | Int4 | Int8WeightOnly | Mixed | Bnb4 | Fp16
QuantizeConfig = Annotated[Scheme, Field(discriminator="scheme")]
