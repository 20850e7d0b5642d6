from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import TrainingError
from models.objectives import objective_for


class Constant(nn.Module):
    def __init__(self, logits: Tensor, wrapped: bool) -> None:
        super().__init__()
        self.logits, self.wrapped = logits, wrapped

    def forward(self, x: Tensor) -> object:
        return SimpleNamespace(logits=self.logits) if self.wrapped else self.logits


@pytest.mark.parametrize("wrapped", [False, True])
def test_cross_entropy_skips_ignored_positions(wrapped: bool) -> None:
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, -100, 2], [4, 0, -100]])
    batch = {"x": torch.zeros(2), "targets": targets}
    kept = targets != -100
    expected = F.cross_entropy(logits[kept], targets[kept])
    loss = objective_for("text-generation")(Constant(logits, wrapped), batch)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("task", ["embedding", "tensor"])
def test_a_task_without_labels_has_no_objective(task: str) -> None:
    with pytest.raises(TrainingError, match=task):
        objective_for(task)  # type: ignore[arg-type]


def test_smoothed_labels_spread_their_share_over_all_classes() -> None:
    logits, targets = torch.randn(4, 5), torch.tensor([0, 2, 4, 1])
    spread = F.one_hot(targets, 5) * 0.9 + 0.1 / 5
    expected = -(spread * logits.log_softmax(-1)).sum(-1).mean()
    objective = objective_for("image-classification", label_smoothing=0.1)
    loss = objective(Constant(logits, False), {"x": torch.zeros(4), "targets": targets})
    torch.testing.assert_close(loss, expected)
