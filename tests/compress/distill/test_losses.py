"""The losses against their definitions, written out with logarithms and sums."""

import math

import pytest
import torch
import torch.nn.functional as F

from compress.distill.losses import distillation_loss, hidden_loss, matched_layers, soft_target_loss
from models.datasets.dataset import IGNORED


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """A student's and a teacher's, float64 [4, 5]."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) of probabilities [rows, classes], averaged over rows."""
    rows = [
        sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(one, other, strict=True))
        for one, other in zip(p, q, strict=True)
    ]
    return sum(rows) / len(rows)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_each_direction_is_its_definition(
    logits: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> None:
    student, teacher = ((each / temperature).softmax(-1) for each in logits)
    forward, reverse = divergence(teacher, student), divergence(student, teacher)
    wanted = {"forward": forward, "reverse": reverse, "symmetric": (forward + reverse) / 2}
    assert forward != pytest.approx(reverse, rel=1e-2)
    for direction, value in wanted.items():
        got = float(soft_target_loss(*logits, temperature, direction))  # type: ignore[arg-type]
        assert got == pytest.approx(temperature**2 * value)


@pytest.mark.parametrize("direction", ["forward", "reverse", "symmetric"])
def test_the_gradient_agrees_with_finite_differences(
    logits: tuple[torch.Tensor, torch.Tensor], direction: str
) -> None:
    student, teacher = logits[0].clone().requires_grad_(), logits[1]
    soft_target_loss(student, teacher, 2.0, direction).backward()  # type: ignore[arg-type, no-untyped-call]
    assert student.grad is not None
    step = 1e-6
    for row in range(4):
        for column in range(5):
            shift = torch.zeros_like(teacher)
            shift[row, column] = step
            above, below = (
                soft_target_loss(logits[0] + side * shift, teacher, 2.0, direction)  # type: ignore[arg-type]
                for side in (1, -1)
            )
            numeric = float(above - below) / (2 * step)
            assert float(student.grad[row, column]) == pytest.approx(numeric, abs=1e-8)


def test_at_high_temperature_the_gradient_keeps_its_size(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Hinton et al., equation 4: it nears that of half the squared difference of centred logits, over N."""
    student, teacher = logits[0].clone().requires_grad_(), logits[1]
    soft_target_loss(student, teacher, 1e4).backward()  # type: ignore[no-untyped-call]
    ours, theirs = (each - each.mean(-1, keepdim=True) for each in logits)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (ours - theirs) / (5 * 4), rtol=1e-3, atol=1e-6)


def test_both_parts_leave_out_what_is_not_scored(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    targets = torch.tensor([1, IGNORED, 4, IGNORED])
    student, teacher = (each[[0, 2]] for each in logits)
    hard = F.cross_entropy(student, targets[[0, 2]])
    wanted = 0.3 * hard + 0.7 * soft_target_loss(student, teacher, 2.0)
    got = distillation_loss(*logits, targets, alpha=0.3, temperature=2.0)
    torch.testing.assert_close(got, wanted)


def test_a_student_like_its_teacher_has_nothing_to_learn(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    for direction in ("forward", "reverse", "symmetric"):
        assert float(soft_target_loss(logits[1], logits[1], 2.0, direction)) == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]
    assert float(hidden_loss(logits[1], logits[1])) == 0


def test_half_precision_is_summed_in_single() -> None:
    halves = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert soft_target_loss(halves, halves * 2, 1.0).dtype == torch.float32


def test_hidden_states_count_in_the_teachers_units_and_without_padding() -> None:
    teacher = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
    student = torch.tensor([[[2.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 0]])
    assert float(hidden_loss(student, teacher, mask)) == pytest.approx((1 / 2) / (4 / 2))
    assert float(hidden_loss(10 * student, 10 * teacher, mask)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("student", "teacher", "wanted"),
    [(2, 4, (1, 3)), (3, 4, (1, 2, 3)), (1, 3, (2,)), (4, 4, (0, 1, 2, 3)), (4, 12, (2, 5, 8, 11))],
)
def test_layers_learn_from_the_end_of_their_share(
    student: int, teacher: int, wanted: tuple[int, ...]
) -> None:
    assert matched_layers(student, teacher) == wanted
