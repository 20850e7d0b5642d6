"""A recipe's steps on a source that was not trained: what they would refuse later is refused now.

Names, shapes and data are the source's own; weights of the zoo are random, so nothing is said here that hangs
on them, and each step refuses that itself. The trade-off: a model of the user's own is loaded once more.
"""

from typing import TYPE_CHECKING

from compress.calibration import drawn_rows
from compress.errors import StepError, first_line
from compress.recipe import Recipe, check_task
from compress.step import GraphMethod, StepConfig, TorchMethod, methods
from models.sources import load_untrained

if TYPE_CHECKING:
    from models.datasets import Dataset
    from models.sources.source import SourceModel


def rehearse(recipe: Recipe) -> None:
    """Raises StepError, or another of the project's errors, for what cannot work whatever the weights."""
    if not any(_looks_at_source(step) for step in recipe.steps):
        return
    source: SourceModel | None = load_untrained(recipe.model, recipe.data, seed=recipe.seed)
    assert source is not None
    check_task(recipe, source.task)
    if recipe.data is not None:
        _check_runs(source)
    dataset = source.dataset
    for step in recipe.steps:
        method = methods()[step.method]
        if isinstance(method, GraphMethod):
            _check_samples(recipe, method.samples(step), dataset)
        elif source is not None:
            source = method.rehearse(step, source, recipe.seed) if method.rehearse else None


def _looks_at_source(step: StepConfig) -> bool:
    method = methods()[step.method]
    return method.rehearse is not None if isinstance(method, TorchMethod) else method.samples(step) > 0


def _check_samples(recipe: Recipe, samples: int, dataset: "Dataset | None") -> None:
    if not samples:
        return
    if dataset is None:
        raise StepError(f"{recipe.model}: this step needs calibration data; give 'data' in the recipe")
    drawn_rows(recipe.model, dataset, samples, samples, recipe.seed)


def _check_runs(source: "SourceModel") -> None:
    """Refuse data of a shape that the module does not take, or of classes that it does not know."""
    import torch

    from models.evaluation import check_labels, metric_for

    if source.module is None or source.dataset is None or source.task == "text2text-generation":
        return
    inputs = source.dataset.train.inputs
    try:
        batch = {name: torch.from_numpy(inputs[name][:2]) for name in source.input_names}
        with torch.inference_mode():
            answer = source.module(*batch.values())
    except Exception as error:  # whatever a module of the user's own raises
        shapes = ", ".join(f"'{name}' {list(array.shape[1:])}" for name, array in inputs.items())
        raise StepError(
            f"{source.reference}: does not take examples of {source.dataset.name} ({shapes}): "
            f"{first_line(error)}; give data of the shape that it takes"
        ) from None
    outputs = answer if isinstance(answer, torch.Tensor) else getattr(answer, "logits", None)
    if outputs is None:
        raise StepError(
            f"{source.reference}: returns a {type(answer).__name__}; let its forward return a tensor"
        )
    # What a zero-shot model chooses among is not its own, but comes with the batch.
    of_classes = metric_for(source.dataset) == "accuracy" and not source.task.startswith("zero-shot")
    if of_classes and source.dataset.train.targets is not None:
        check_labels(source.dataset.train.targets, outputs.shape[-1])
