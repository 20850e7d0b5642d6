"""What a recipe's `distill` step may say. No heavy import: recipes are read with it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from compress.finetune import SMOOTHED, SoftTargets, TrainingConfig
from compress.step import StepConfig

LayerIndices = Annotated[tuple[int, ...], Field(min_length=1)]


class StudentConfig(BaseModel):
    """Where the student comes from: exactly one of three.

    `layers` copies these of the teacher's transformer layers, and all else; `importance` keeps the half whose
    absence would change the stream of hidden states most. `source` is another model,
    `zoo:NAME` or `py:package.module:factory`; with `fresh`, the zoo's untrained. `config` is the teacher's
    own member of the zoo, built anew with these settings changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Literal["every-other", "first-last", "importance"] | LayerIndices | None = None
    source: str | None = Field(default=None, pattern=r"^(zoo|py):.+")
    fresh: bool = False
    config: dict[str, Any] | None = Field(default=None, min_length=1)

    @field_validator("layers")
    @classmethod
    def _in_order(cls, layers: Any) -> Any:
        if isinstance(layers, tuple) and (list(layers) != sorted(set(layers)) or layers[0] < 0):
            raise ValueError("list each layer once, in ascending order, counting from 0")
        return layers

    @model_validator(mode="after")
    def _one_origin(self) -> "StudentConfig":
        if sum(origin is not None for origin in (self.layers, self.source, self.config)) != 1:
            raise ValueError("give exactly one of 'layers', 'source' and 'config'")
        if self.fresh and not (self.source or "").startswith("zoo:"):
            raise ValueError("'fresh' goes with a zoo source; the other students' weights are not a choice")
        return self


class HiddenConfig(BaseModel):
    """Hidden states too: `weight` times their squared difference, in units of the teacher's mean square."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0)


class RelationConfig(BaseModel):
    """Self-attention relations too: `weight` times their divergence in one layer, by default the last.

    The student's heads and widths need not be the teacher's: queries, keys and values are cut into
    `heads` relation heads on both sides (MiniLMv2).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0)
    heads: int = Field(default=4, ge=1)
    teacher_layer: int = -1


class AttentionConfig(BaseModel):
    """Attention maps too: `weight` times their squared difference, layer by layer (TinyBERT).

    For encoders, whose student has as many heads as its teacher; `relations` asks for neither.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0)


class CachedConfig(BaseModel):
    """The teacher's answers are computed once for the whole training split and kept on disk.

    Of each, the `top_k` likeliest classes or tokens are kept, and what the others have together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int = Field(default=32, ge=1)


class SequencesConfig(BaseModel):
    """The student reads what its teacher writes, instead of the training split (Kim and Rush, 2016).

    `count` windows are generated once and kept on disk, each from the first `prompt` tokens of a window of
    the training split, drawn at `temperature` (0 takes the likeliest). arXiv:1606.07947.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(default=512, ge=1)
    prompt: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, ge=0)


class DistillConfig(StepConfig, SoftTargets):
    """A smaller model that learns from the one before the step.

    `compare_alone` trains the same student a second time without a teacher, for as many steps.
    """

    method: Literal["distill"] = "distill"
    student: StudentConfig
    hidden: HiddenConfig | None = None
    relations: RelationConfig | None = None
    attention: AttentionConfig | None = None
    cached: CachedConfig | None = None
    sequences: SequencesConfig | None = None
    training: TrainingConfig = TrainingConfig()
    compare_alone: bool = False

    @field_validator("training")
    @classmethod
    def _smooths_nothing(cls, training: TrainingConfig) -> TrainingConfig:
        if training.label_smoothing:
            raise PydanticCustomError("training", SMOOTHED)
        return training

    @field_validator("cached")
    @classmethod
    def _answers_suffice(cls, cached: CachedConfig | None, info: ValidationInfo) -> CachedConfig | None:
        if cached is None:
            return None
        inner = [name for name in ("hidden", "relations", "attention") if info.data.get(name)]
        if inner:
            raise PydanticCustomError("cached", f"keeps answers, and '{inner[0]}' looks inside the teacher")
        if info.data.get("divergence") != "forward":
            raise PydanticCustomError(
                "cached",
                "keeps the likeliest answers, which is enough for 'divergence: forward' only",
            )
        return cached
