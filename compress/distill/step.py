"""The `distill` step: a smaller student learns from the model as it is so far, and takes its place.

steps:
  - method: distill
    student: {layers: every-other}   # first-last | importance | [0, 2]; or {source: zoo:NAME | py:a.b:make};
                                     # or {config: {...}}
    temperature: 2.0
    alpha: 0.5                       # alpha CE + (1 - alpha) T^2 KL
    divergence: forward              # forward | reverse | symmetric
    hidden: {weight: 1.0}            # match hidden states too, through learned projections
    relations: {weight: 1.0}         # and who attends to whom, query, key and value each (MiniLM)
    training: {steps: 600, learning_rate: 0.001}
    compare_alone: true              # what the same student reaches without a teacher
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.distill.config import DistillConfig, StudentConfig
from compress.errors import StepError
from compress.order import loses_zeros
from compress.step import Figures, TorchMethod, register
from runtime.manifest import Task

if TYPE_CHECKING:
    from torch import nn

    from models.sources.source import SourceModel


def run(config: DistillConfig, source: SourceModel, seed: int) -> tuple[SourceModel, Figures]:
    """The student in the teacher's place; both one's size and metric on the validation split."""
    from compress.distill.student import build_student, check_comparable
    from compress.quality import module_metric, parameter_count

    metric = _check_source(source)
    check(config, source.task)
    name = _name(config.student)
    assert source.module is not None
    student = build_student(config.student, source, seed)
    check_comparable(student, source, name)
    alone = _alone(config, source, student, seed) if config.compare_alone else {}
    trained = _train(config, source, student, seed, name)
    figures = {
        "student_parameters": parameter_count(student),
        "teacher_parameters": parameter_count(source.module),
        "metric": metric,
        "teacher": module_metric(source, source.module, seed),
        "student": module_metric(source, student, seed),
        **alone,
        **trained,
    }
    return replace(source, module=student), figures


def restore(config: DistillConfig, source: SourceModel, shapes: Mapping[str, tuple[int, ...]]) -> SourceModel:
    """A fresh source with the student's structure."""
    from compress.distill.student import build_student

    return replace(source, module=build_student(config.student, source, seed=0))


def check(config: DistillConfig, task: Task) -> None:
    """Refuse a task without logits."""
    if task == "embedding":
        raise StepError("distill learns from logits, and an embedding model has none; use another method")


def depends(config: DistillConfig, seed: int) -> str:
    """The student's own source is part of what the result depends on."""
    from models.sources import source_fingerprint

    return source_fingerprint(config.student.source, None, seed) if config.student.source else ""


def _check_source(source: SourceModel) -> str:
    """The metric that the source is judged by."""
    from compress.quality import metric_name

    if source.module is None or source.dataset is None:
        raise StepError(f"{source.reference}: distill needs a torch model and labelled data; give 'data'")
    return metric_name("distill", source)


def _train(config: DistillConfig, source: SourceModel, student: nn.Module, seed: int, name: str) -> Figures:
    from compress.distill.objective import hidden_objective, soft_objective, with_relations
    from compress.finetune import finetune

    assert source.module is not None
    learner, loss = student, soft_objective(config, source.module)
    if config.hidden:
        learner, loss = hidden_objective(config, student, source, name)
    if config.relations:
        loss = with_relations(config, student, source, name, loss)
    return finetune(
        replace(source, module=learner),
        config.training,
        seed,
        title=f"distilling {source.name}",
        teacher=source.module,
        objective=loss,
    )


def _alone(config: DistillConfig, source: SourceModel, student: nn.Module, seed: int) -> Figures:
    """The same student, the same batches, no teacher."""
    import copy

    from compress.finetune import finetune
    from compress.quality import module_metric

    twin = replace(source, module=copy.deepcopy(student))
    finetune(twin, config.training, seed, title="the student alone")
    assert twin.module is not None
    return {"alone": module_metric(source, twin.module, seed)}


def _name(student: StudentConfig) -> str:
    return student.source or ("the student of 'config'" if student.config else "the student of 'layers'")


conflict = loses_zeros("trains every weight of its student")

register(TorchMethod("distill", DistillConfig, run, restore, check, depends, conflict))
