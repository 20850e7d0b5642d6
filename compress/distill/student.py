"""The student: built in one of three ways, and checked to be comparable with its teacher.

It trains nothing, but a student from the zoo that was never trained is trained there first.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import nn

from compress.distill.config import StudentConfig
from compress.distill.layers import chosen_layers, most_important, stack_of, with_layers
from compress.errors import StepError, first_line
from models import registry
from models.batches import shuffled_batches
from models.objectives import forward
from models.registry import ModelSpec, TrainingRecipe
from models.sources import load_source
from models.sources.factory import build as build_factory
from models.sources.source import SourceModel
from models.training import Batch
from models.zoo.member import fresh
from runtime.suggest import nearest

ZOO, FACTORY = "zoo:", "py:"
# Rows of training data that layers are ranked on: an average over all their positions.
IMPORTANCE_ROWS = 32


def build_student(
    config: StudentConfig, source: SourceModel, seed: int, load: Callable[..., SourceModel] = load_source
) -> nn.Module:
    """The student of `source` before it learns, in evaluation mode; `load` gives a member of the zoo.

    Raises StepError.
    """
    assert source.module is not None
    if config.layers is not None:
        return with_layers(source.module, _kept_layers(config, source), source.reference).eval()
    if config.source is not None:
        return _from_source(config.source, config.fresh, source, seed, load).eval()
    assert config.config is not None
    return _reconfigured(config.config, source, seed).eval()


def _kept_layers(config: StudentConfig, source: SourceModel) -> tuple[int, ...]:
    assert source.module is not None
    module, name = source.module, source.reference
    if config.layers == "importance":
        return most_important(module, name, lambda: forward(module, example_batch(source, IMPORTANCE_ROWS)))
    return chosen_layers(config.layers, len(stack_of(module, name)))


def check_comparable(student: nn.Module, source: SourceModel, name: str) -> None:
    """Refuse a student that does not answer the teacher's inputs with outputs of the teacher's shape."""
    assert source.module is not None
    batch = example_batch(source)
    with torch.no_grad():
        wanted = tuple(forward(source.module, batch).shape)
        try:
            got = tuple(forward(student, batch).shape)
        except Exception as error:  # whatever a module of the user's own raises
            raise StepError(
                f"distill: {name} does not take the inputs of {source.reference} ({first_line(error)}); "
                "choose another"
            ) from None
    if got != wanted:
        raise StepError(
            f"distill: the outputs of {name} are {list(got)} where the teacher's, {source.reference}, are "
            f"{list(wanted)}: they cannot be compared; give a student with the teacher's classes or tokens"
        )


def example_batch(source: SourceModel, rows: int = 2) -> Batch:
    """A few rows of the training split, with targets where a row has one: texts to embed have none."""
    assert source.dataset is not None
    if source.task == "embedding":
        inputs = source.dataset.train.inputs
        return {name: torch.from_numpy(inputs[name][:rows]) for name in source.input_names}
    recipe = TrainingRecipe(steps=1, batch_size=rows, learning_rate=0.0)
    return shuffled_batches(source.dataset.train, recipe, seed=0)(0, 0.0)


def _from_source(
    reference: str, untrained: bool, source: SourceModel, seed: int, load: Callable[..., SourceModel]
) -> nn.Module:
    if reference.startswith(FACTORY):
        return build_factory(reference.removeprefix(FACTORY), seed)
    spec = registry.get(reference.removeprefix(ZOO))
    if spec.task != source.task:
        raise StepError(f"distill: {reference} is for {spec.task}, its teacher for {source.task}")
    if untrained:
        return _fresh(spec, source, seed)
    loaded = load(reference, seed=seed)
    _check_alike(loaded, source)
    assert loaded.module is not None
    return loaded.module


def _check_alike(student: SourceModel, teacher: SourceModel) -> None:
    """Outputs of one shape may still mean other things: other labels in that order, other tokens."""
    if student.labels and teacher.labels and student.labels != teacher.labels:
        raise StepError(
            f"distill: {student.reference} and {teacher.reference} have other labels: "
            "their outputs cannot be compared; add 'fresh: true', or choose another student"
        )
    ours, theirs = (
        {name: path.read_bytes() for name, path in each.files.items() if name == "tokenizer.json"}
        for each in (student, teacher)
    )
    if ours != theirs:
        raise StepError(
            f"distill: {student.reference} and {teacher.reference} have other tokenizers: "
            "their outputs cannot be compared; add 'fresh: true', or choose another student"
        )


def _reconfigured(overrides: Mapping[str, Any], source: SourceModel, seed: int) -> nn.Module:
    """The teacher's own member of the zoo in another size, with fresh weights."""
    if not source.reference.startswith(ZOO):
        raise StepError(
            f"distill: a student of 'config' is for a member of the zoo, not for {source.reference}; "
            "use 'layers' or 'source'"
        )
    spec = registry.get(source.reference.removeprefix(ZOO))
    for key in overrides:
        if key not in (known := _settings(spec)):
            raise StepError(f"distill: {source.reference} has no setting '{key}'; {nearest(key, known)}")
    return _fresh(replace(spec, config={**spec.config, **overrides}), source, seed)


def _fresh(spec: ModelSpec, source: SourceModel, seed: int) -> nn.Module:
    assert source.dataset is not None
    try:
        return fresh(spec, source.dataset, seed)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StepError(f"distill: zoo:{spec.name} cannot be built with these settings: {reason}") from None


def _settings(spec: ModelSpec) -> set[str]:
    """What may be changed of a member: its declared configuration, and its function's own parameters."""
    module, _, name = spec.build.partition(":")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    return {*spec.config, *(each.name for each in parameters if each.kind is not each.VAR_KEYWORD)}
