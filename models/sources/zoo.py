"""`zoo:NAME`: a member of the zoo, trained on first use. `models.zoo.member` trains and caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from models.datasets import Dataset, View, load_dataset
from models.registry import ModelSpec, get
from models.sources.source import SourceModel, attach
from models.zoo.member import Member, build, objective_of

if TYPE_CHECKING:
    from torch import nn


def fingerprint(name: str, seed: int, full: bool) -> str:
    """What the member's weights depend on."""
    return Member(get(name), seed, full).fingerprint


def load(name: str, data: str | None, seed: int, full: bool) -> SourceModel:
    """The member `name`, with its own data set, or seeing `data` instead."""
    spec = get(name)
    module, own, record = Member(spec, seed, full).obtain()
    source = as_source(spec, module, own, {key: value for key, value in record.items() if key != "curve"})
    return _seeing(data, source, spec, own)


def load_untrained(name: str, data: str | None, seed: int, full: bool) -> SourceModel:
    """The member's network with random weights, in evaluation mode, and the same data sets."""
    import torch

    spec = get(name)
    own = load_dataset(spec.dataset, View(spec.task, spec.processing))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build(spec).eval()
    return _seeing(data, as_source(spec, module, own, {}), spec, own)


def _seeing(data: str | None, source: SourceModel, spec: ModelSpec, own: Dataset) -> SourceModel:
    """`source` with the data set `data`, seen as the member sees its own; or as it is."""
    if data is None:
        return source
    view = View(spec.task, own.processing, own.files.get("tokenizer.json"), own.labels)
    return replace(source, dataset=attach(data, view, source.reference))


def as_source(
    spec: ModelSpec, module: nn.Module, dataset: Dataset, details: Mapping[str, Any]
) -> SourceModel:
    """A network of `spec`, trained or not, as compression and export take it."""
    return SourceModel(
        name=spec.name,
        reference=f"zoo:{spec.name}",
        task=spec.task,
        processing=dataset.processing,
        labels=dataset.labels,
        module=module,
        graph=None,
        input_names=tuple(dataset.validation.inputs),
        output_names=spec.outputs,
        dataset=dataset,
        files=dataset.files,
        details=details,
        objective=objective_of(spec) if spec.objective else None,
    )
