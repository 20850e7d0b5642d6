"""Training after a step changed a model: the one loop of `models.training`, on the source's own data.

What a step does to weights (masks, fake quantization) is the step's own: it changes the module before and
after. With `distill`, the loss mixes in the unchanged teacher's soft targets.
"""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compress.distill.losses import soft_target_loss
from compress.errors import StepError
from compress.step import Figures
from models.batches import shuffled_batches
from models.objectives import cross_entropy, forward, objective_for
from models.progress import training_bar
from models.registry import TrainingRecipe
from models.sources.source import SourceModel
from models.training import Batch, Objective, train


class SoftTargets(BaseModel):
    """`alpha` CE + (1 - `alpha`) T^2 KL against the model as it was before the step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.5, ge=0, le=1)


class FinetuneConfig(BaseModel):
    """How long and how fast; AdamW, warm-up and cosine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    distill: SoftTargets | None = None


def finetune(
    source: SourceModel,
    config: FinetuneConfig,
    seed: int,
    *,
    title: str = "fine-tuning",
    teacher: nn.Module | None = None,
    objective: Objective | None = None,
) -> Figures:
    """Train `source.module` in place on the training split; steps, seconds and the last losses as figures.

    `teacher` is what `config.distill` learns from; `objective` replaces the task's own loss.
    Raises StepError for a source without labelled data.
    """
    if source.dataset is None or source.module is None:
        raise StepError(f"{source.reference}: fine-tuning needs a torch model and labelled data; give 'data'")
    loss = objective or objective_for(source.task)
    if config.distill and teacher is not None:
        loss = _distilling(config.distill, teacher)
    recipe = TrainingRecipe(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup=config.warmup,
        weight_decay=0.0,
    )
    batches = shuffled_batches(source.dataset.train, recipe, seed)
    with training_bar(title) as report:
        result = train(source.module, batches, loss, recipe, seed=seed, report=report)
    tail = [value for _, value in result.curve[-10:]]
    return {"steps": result.steps, "seconds": round(result.seconds, 1), "loss": sum(tail) / max(len(tail), 1)}


def _distilling(soft: SoftTargets, teacher: nn.Module) -> Objective:
    teacher.eval()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = forward(teacher, batch)
        logits = forward(module, batch)
        hard = cross_entropy(logits, batch["targets"])
        return soft.alpha * hard + (1 - soft.alpha) * soft_target_loss(logits, wanted, soft.temperature)

    return loss
