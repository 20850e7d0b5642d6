"""The student of a diffusion model: what it minimises, and that other drawing models are refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.distill.drawing import velocity_objective
from compress.distill.step import run
from compress.errors import StepError
from compress.step import validate
from models import registry
from models.datasets import View, load_dataset
from models.drawing import drawing_rows, intra_class_distance
from models.evaluation import torch_predict
from models.sources.source import SourceModel
from models.sources.zoo import as_source
from models.training import Batch
from models.zoo.member import fresh
from runtime.drawing import denoise
from runtime.manifest import Diffusion, DrawingProcessing

DIFFUSION = Diffusion(timesteps=10)
BATCH = {
    "noise": torch.zeros(4000, 1, 2, 2),
    "label": torch.arange(4000) % 10,
    "timestep": torch.zeros(4000, dtype=torch.int64),
    "targets": torch.full((4000, 1, 2, 2), 0.5),
}


class Constant(nn.Module):
    """The same velocity, whatever goes in."""

    def __init__(self, velocity: float) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, noise: Tensor, label: Tensor, timestep: Tensor) -> Tensor:
        assert timestep.min() >= 1
        return torch.full_like(noise, self.velocity)


class Knowing(nn.Module):
    """The true velocity where every pixel of every image is 0.5."""

    def forward(self, noise: Tensor, label: Tensor, timestep: Tensor) -> Tensor:
        angle = (timestep / DIFFUSION.timesteps + 0.008) / 1.008 * torch.pi / 2
        kept, lost = (share.view(-1, 1, 1, 1) for share in (angle.cos(), angle.sin()))
        return kept * (noise - kept * 0.5) / lost - lost * 0.5


def test_the_true_velocity_and_the_teachers_have_their_shares() -> None:
    knowing, teacher = Knowing(), Constant(3.0)
    assert float(velocity_objective(teacher, DIFFUSION, 1.0)(knowing, BATCH)) == pytest.approx(0, abs=1e-6)
    assert float(velocity_objective(teacher, DIFFUSION, 0.0)(Constant(1.0), BATCH)) == pytest.approx(4.0)
    assert float(velocity_objective(knowing, DIFFUSION, 0.3)(knowing, BATCH)) == pytest.approx(0, abs=1e-6)
    torch.manual_seed(0)
    all_true = float(velocity_objective(teacher, DIFFUSION, 1.0)(Constant(1.0), BATCH))
    torch.manual_seed(0)
    mixed = float(velocity_objective(teacher, DIFFUSION, 0.25)(Constant(1.0), BATCH))
    assert mixed == pytest.approx(0.25 * all_true + 0.75 * 4.0, rel=1e-5)


def tiny(name: str, **config: Any) -> SourceModel:
    spec = registry.get(name)
    dataset = load_dataset(spec.dataset, View(spec.task, spec.processing))
    spec = replace(spec, config={**spec.tiny, **config})
    return as_source(spec, fresh(spec, dataset, seed=0).eval(), dataset, {})


def distill(source: SourceModel, **settings: Any) -> tuple[SourceModel, dict[str, Any]]:
    quick = {"steps": 80, "batch_size": 32, "learning_rate": 0.01, "threads": 1}
    student = {"config": {"width": 4, "blocks": 1}}
    config: Any = validate({"method": "distill", "student": student, "training": quick, **settings})
    return run(config, source, 0)


def test_a_narrower_denoiser_takes_the_teachers_place_and_is_judged_by_its_drawings() -> None:
    teacher = tiny("diffusion", width=8)
    student, figures = distill(teacher, alpha=0.0)
    assert figures["metric"] == "intra-class-frechet"
    assert figures["student_parameters"] < figures["teacher_parameters"]
    assert student.module is not None
    assert teacher.module is not None
    torch.manual_seed(0)
    learnt = velocity_objective(teacher.module, Diffusion(), 0.0)(student.module, batch(teacher)).item()
    torch.manual_seed(0)
    before = tiny("diffusion", width=4).module
    assert before is not None
    assert learnt < 0.5 * velocity_objective(teacher.module, Diffusion(), 0.0)(before, batch(teacher)).item()
    assert figures["student"] == pytest.approx(distance(student), rel=1e-6)


def batch(source: SourceModel) -> Batch:
    assert source.dataset is not None
    split = source.dataset.train
    arrays = {**split.inputs, "targets": split.targets}
    return {name: torch.from_numpy(array[:64]) for name, array in arrays.items() if array is not None}


def distance(source: SourceModel) -> float:
    """Of what all the steps of a drawing make, to the held-out digits."""
    assert source.dataset is not None
    assert source.module is not None
    assert isinstance(source.processing, DrawingProcessing)
    assert source.processing.diffusion is not None
    split = source.dataset.validation
    assert split.targets is not None
    step = torch_predict(source.module, source.input_names, source.output_names)
    drawn = denoise(step, split.inputs, source.processing.diffusion)
    return intra_class_distance(drawing_rows(drawn["image"], split.targets))


def test_a_model_that_draws_at_once_is_refused() -> None:
    with pytest.raises(StepError, match="zoo:vae: distill knows how diffusion's steps are learnt"):
        distill(tiny("vae"))


def test_what_drawing_models_have_not_is_refused() -> None:
    with pytest.raises(StepError, match=r"a drawing model's student learns .* leave out 'hidden'"):
        distill(tiny("diffusion"), hidden={"weight": 1.0})
