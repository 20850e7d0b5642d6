"""Training after a step changed a model: the one loop of `models.training`, on the source's own data.

What a step does to weights (masks, fake quantization) is the step's own: it changes the module before and
after. With `distill`, the loss mixes in the unchanged teacher's soft targets. Recipes are read with the
settings below, so torch is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from compress.errors import StepError
from compress.step import Figures, StepConfig
from models.registry import OptimizerName, TrainingRecipe
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.sources.source import SourceModel
    from models.training import Batch, Batches, Objective

Divergence = Literal["forward", "reverse", "symmetric"]

# Tasks whose outputs are logits of classes, one choice a target: what soft targets are made of.
OF_CLASSES: tuple[Task, ...] = (
    "image-classification",
    "text-classification",
    "token-classification",
    "node-classification",
    "segmentation",
    "next-token",
    "text-generation",
    "text2text-generation",
    "tensor",
)

# What starting more does is end the process, in a library that says so in its own words.
MOST_THREADS = 1024

SMOOTHED = "a teacher's soft targets take the place of smoothed ones; leave 'label_smoothing' out"


class SoftTargets(BaseModel):
    """`alpha` CE + (1 - `alpha`) T^2 KL against the teacher, which is the model as it was before the step.

    `divergence` is the direction of the KL: `forward` covers all that the teacher finds likely, `reverse`
    keeps to its modes, `symmetric` is the mean of both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    divergence: Divergence = "forward"


class TrainingConfig(BaseModel):
    """How long, how fast and in how much memory; warm-up and cosine.

    `threads` None is the zoo's choice for its members and torch's for the rest. A small network is faster on
    one, many times so on a busy machine. `accumulation` cuts a batch into parts that go one after the other,
    `gradient_checkpointing` computes the blocks of a transformer twice instead of keeping their activations.
    LARS wants rates near 1; LAMB is for batches of hundreds; `adamw-8bit` keeps a quarter of AdamW's state,
    and `paged-adamw` moves it out of a full GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    optimizer: OptimizerName = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    accumulation: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class FinetuneConfig(TrainingConfig):
    """The same, and what else the loss asks for."""

    distill: SoftTargets | None = None

    @field_validator("distill")
    @classmethod
    def _smooths_nothing(cls, distill: SoftTargets | None, info: ValidationInfo) -> SoftTargets | None:
        if distill is not None and info.data.get("label_smoothing"):
            raise PydanticCustomError("distill", SMOOTHED)
        return distill


def finetune(
    source: SourceModel,
    config: TrainingConfig,
    seed: int,
    *,
    title: str = "fine-tuning",
    teacher: nn.Module | None = None,
    objective: Objective | None = None,
    before_step: Callable[[int], None] | None = None,
) -> Figures:
    """Train `source.module` in place on the training split; steps, seconds and the last losses as figures.

    `teacher` is what `config.distill` learns from, and is on the CPU again afterwards; `objective` replaces
    the task's own loss; `before_step` is called with each step's number, from 0, before its batch goes in.
    Raises StepError for a source without labelled data, and TrainingDiverged, which says where the last good
    weights are.
    """
    from compress.last_good import kept_when_diverging
    from models.batches import shuffled_batches
    from models.memory import exhaustion_told
    from models.progress import training_bar
    from models.training import train

    check_trains(source, objective)
    assert source.dataset is not None
    assert source.module is not None
    loss = objective or own_objective(source, config.label_smoothing)
    if isinstance(config, FinetuneConfig) and config.distill and teacher is not None:
        loss = _distilling(config.distill, teacher)
    recipe = _recipe(config, source)
    batches = _announced(shuffled_batches(source.dataset.train, recipe, seed), before_step)
    with training_bar(title) as bar, kept_when_diverging(source.module, recipe.steps, source.name) as kept:

        def report(progress: float, step: int, loss: float) -> None:
            kept.note(step)
            bar(progress, step, loss)

        with exhaustion_told(recipe):
            result = train(source.module, batches, loss, recipe, seed=seed, report=report)
    if teacher is not None:
        teacher.cpu()
    tail = [value for _, value in result.curve[-10:]]
    return {"steps": result.steps, "seconds": round(result.seconds, 1), "loss": sum(tail) / max(len(tail), 1)}


def check_teaching(step: StepConfig, task: Task) -> None:
    """Raises StepError for a training that asks for soft targets of a task which has none."""
    trainings = (getattr(step, name, None) for name in ("finetune", "training"))
    if task not in OF_CLASSES and any(getattr(each, "distill", None) for each in trainings):
        raise StepError(
            f"{step.method}: soft targets are of classes, and {task} chooses among none; leave 'distill' out"
        )


def check_trains(source: SourceModel, objective: Objective | None = None) -> None:
    """Raises StepError for a source without a torch model or data, TrainingError for one without a loss."""
    if source.dataset is None or source.module is None:
        raise StepError(f"{source.reference}: fine-tuning needs a torch model and labelled data; give 'data'")
    if objective is None:
        own_objective(source)


def _recipe(config: TrainingConfig, source: SourceModel) -> TrainingRecipe:
    return TrainingRecipe(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup=config.warmup,
        weight_decay=config.weight_decay,
        optimizer=config.optimizer,
        precision=config.precision,
        accumulation=config.accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        threads=config.threads or _usual_threads(source),
    )


def _announced(batches: Batches, before_step: Callable[[int], None] | None) -> Batches:
    """The same batches; a step's is asked for just before it (and the first once more, to see its memory)."""
    if before_step is None:
        return batches

    def announced(step: int, progress: float) -> Batch:
        before_step(step)
        return batches(step, progress)

    return announced


def own_objective(source: SourceModel, label_smoothing: float = 0.0) -> Objective:
    """The source's own loss, such as a detector's, else its task's.

    For arrays of the user's own whose targets are classes, cross-entropy. `label_smoothing` is for losses of
    classes alone.

    Raises TrainingError for a task without one, StepError for smoothing that the source's own leaves out.
    """
    from models.evaluation import metric_for
    from models.objectives import cross_entropy, forward, objective_for

    if source.objective is not None:
        if label_smoothing:
            raise StepError(
                f"{source.reference} has a loss of its own, without smoothing; leave 'label_smoothing' out"
            )
        return source.objective
    classifies = source.dataset is not None and metric_for(source.dataset) == "accuracy"
    if source.task == "tensor" and classifies:
        return lambda module, batch: cross_entropy(forward(module, batch), batch["targets"], label_smoothing)
    return objective_for(source.task, label_smoothing)


def _usual_threads(source: SourceModel) -> int | None:
    """What the zoo trains the member on, if it is one."""
    from models import registry

    kind, _, name = source.reference.partition(":")
    if kind != "zoo" or name not in registry.names():
        return None
    return registry.get(name).training.threads


def taught(teacher: nn.Module, batch: Batch) -> Tensor:
    """The teacher's logits for a batch, without gradients, on the batch's device."""
    import torch

    from models.objectives import forward

    with torch.no_grad():
        return forward(teacher.to(batch["targets"].device).eval(), batch)


def _distilling(soft: SoftTargets, teacher: nn.Module) -> Objective:
    from compress.distill.losses import distillation_loss
    from models.objectives import forward

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return distillation_loss(
            forward(module, batch), taught(teacher, batch), batch["targets"], **soft.model_dump()
        )

    return loss
