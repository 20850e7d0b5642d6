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
    attention: {weight: 1.0}         # or the attention maps themselves (TinyBERT), of encoders
    cached: {top_k: 32}              # the teacher answers once, and not at every step
    sequences: {count: 512}          # for language models: learn from what the teacher writes
    training: {steps: 600, learning_rate: 0.001}
    compare_alone: true              # what the same student reaches without a teacher

An embedding model has no logits: its student learns the teacher's pooled vectors, computed once. Nor has a
diffusion model: its student learns the velocity, `alpha` of the true one and 1 - `alpha` of the teacher's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.distill.config import DistillConfig, StudentConfig
from compress.errors import StepError
from compress.finetune import OF_CLASSES
from compress.order import loses_zeros
from compress.step import Figures, TorchMethod, register
from runtime.manifest import DrawingProcessing, Task, TextProcessing

if TYPE_CHECKING:
    from torch import nn

    from models.sources.source import SourceModel
    from models.training import Objective

# Tasks whose students learn something else than logits.
_WITHOUT_LOGITS: tuple[Task, ...] = ("embedding", "image-generation")
# What a model without logits and labels cannot give.
_OF_LOGITS = ("hidden", "relations", "attention", "cached", "sequences", "compare_alone")


def run(config: DistillConfig, source: SourceModel, seed: int) -> tuple[SourceModel, Figures]:
    """The student in the teacher's place; both one's size and metric on the validation split."""
    from compress.distill.student import build_student, check_comparable
    from compress.quality import parameter_count

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
        **_worth(source, student, seed),
        **alone,
        **trained,
    }
    return replace(source, module=student), figures


def rehearse(config: DistillConfig, source: SourceModel, seed: int) -> SourceModel:
    """Student and teacher, and whatever of them is to be compared; the student is not trained, nor loaded."""
    from compress.distill.answers import check_prompt
    from compress.distill.student import build_student, check_comparable
    from models.sources import load_untrained

    _check_source(source)
    check(config, source.task)
    name = _name(config.student)
    student = build_student(config.student, source, seed, load_untrained)
    check_comparable(student, source, name)
    if config.sequences:
        check_prompt(source, config.sequences)
    _objective(config, source, student, name)
    return replace(source, module=student)


def restore(config: DistillConfig, source: SourceModel, shapes: Mapping[str, tuple[int, ...]]) -> SourceModel:
    """A fresh source with the student's structure."""
    from compress.distill.student import build_student

    return replace(source, module=build_student(config.student, source, seed=0))


def check(config: DistillConfig, task: Task) -> None:
    """Refuse what the task has not got."""
    if task not in OF_CLASSES and task not in _WITHOUT_LOGITS:
        raise StepError(
            f"distill: a student learns its teacher's choice among classes, and {task} has none; shrink the "
            "model, or train a smaller one"
        )
    asked = [name for name in _OF_LOGITS if getattr(config, name)]
    if task == "image-generation" and (wrong := [name for name in asked if name != "compare_alone"]):
        raise StepError(
            f"distill: a drawing model's student learns what its teacher answers; leave out '{wrong[0]}'"
        )
    if task == "embedding" and asked:
        raise StepError(
            f"distill: an embedding model's student learns vectors, without labels; leave out '{asked[0]}'"
        )
    if config.sequences and task != "text-generation":
        raise StepError(f"distill: 'sequences' are what a language model writes; leave it out for {task}")
    if config.attention and task == "text-generation":
        raise StepError(
            "distill: 'attention' compares queries with keys before positions are rotated into them; "
            "use 'relations'"
        )


def depends(config: DistillConfig, seed: int) -> str:
    """The student's own source is part of what the result depends on."""
    from compress.cache import digest
    from compress.dependencies import code_of
    from models.sources import source_fingerprint, source_module

    source = config.student.source
    return digest([source_fingerprint(source, None, seed), code_of(source_module(source))]) if source else ""


def _check_source(source: SourceModel) -> str:
    """The metric that the source is judged by."""
    from compress.quality import metric_name

    if source.module is None or source.dataset is None:
        raise StepError(f"{source.reference}: distill needs a torch model and labelled data; give 'data'")
    if isinstance(source.processing, DrawingProcessing) and source.processing.diffusion is None:
        raise StepError(
            f"{source.reference}: distill knows how diffusion's steps are learnt, and this model draws at "
            "once; quantize it, or train a smaller member of the zoo"
        )
    return metric_name("distill", source)


def _train(config: DistillConfig, source: SourceModel, student: nn.Module, seed: int, name: str) -> Figures:
    from compress.finetune import finetune

    taught = _taught(config, source, seed)
    learner, loss = _objective(config, taught, student, name)
    return finetune(
        replace(taught, module=learner),
        config.training,
        seed,
        title=f"distilling {source.name}",
        teacher=source.module,
        objective=loss,
    )


def _taught(config: DistillConfig, source: SourceModel, seed: int) -> SourceModel:
    """The source with the training split that the student sees."""
    from compress.distill.answers import with_answers, with_sequences, with_vectors

    if source.task == "embedding":
        return with_vectors(source)
    if config.sequences:
        source = with_sequences(source, config.sequences, seed)
    return with_answers(source, config.cached, config.temperature) if config.cached else source


def _objective(
    config: DistillConfig, source: SourceModel, student: nn.Module, name: str
) -> tuple[nn.Module, Objective]:
    """What is trained (the student, or the student and its projections), and by which loss."""
    from compress.distill import objective

    assert source.module is not None
    if isinstance(source.processing, TextProcessing) and source.task == "embedding":
        return student, objective.embedding_objective(source.processing)
    if isinstance(source.processing, DrawingProcessing):
        return student, _velocity(config, source)
    learner, loss = student, objective.soft_objective(config, source.module)
    if config.cached:
        loss = objective.cached_objective(config)
    if config.hidden:
        learner, loss = objective.hidden_objective(config, student, source, name)
    if config.relations:
        loss = objective.with_relations(config, student, source, name, loss)
    if config.attention:
        loss = objective.with_attention(config, student, source, name, loss)
    return learner, loss


def _velocity(config: DistillConfig, source: SourceModel) -> Objective:
    from compress.distill.drawing import velocity_objective

    assert source.module is not None
    assert isinstance(source.processing, DrawingProcessing)
    assert source.processing.diffusion is not None
    return velocity_objective(source.module, source.processing.diffusion, config.alpha)


def _worth(source: SourceModel, student: nn.Module, seed: int) -> Figures:
    """Both one's metric on the validation split; nothing where that has no targets, as texts to embed may."""
    from compress.quality import module_metric

    assert source.module is not None
    assert source.dataset is not None
    if source.dataset.validation.targets is None:
        return {}
    modules = {"teacher": source.module, "student": student}
    return {name: module_metric(source, module, seed) for name, module in modules.items()}


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

register(TorchMethod("distill", DistillConfig, run, restore, check, depends, conflict, rehearse))
