"""The loss that each task is trained by. Distillation and regularisers are not here but in `compress`."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import TrainingError
from models.training import Batch, Objective
from runtime.manifest import Task


def objective_for(task: Task) -> Objective:
    """Mean cross-entropy over the targets that are scored. Raises TrainingError for a task without labels."""
    if task in ("embedding", "tensor"):
        raise TrainingError(
            f"there is no training objective for the task '{task}'; give a model of another task"
        )
    return _cross_entropy


def _cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    output = module(**inputs)
    logits = output if isinstance(output, Tensor) else output.logits
    return F.cross_entropy(logits.flatten(0, -2).float(), batch["targets"].flatten())
