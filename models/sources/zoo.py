"""`zoo:NAME`: a member of the zoo, trained on first use. `models.zoo.member` trains and caches."""

from models.datasets import View
from models.registry import get
from models.sources.source import SourceModel, attach
from models.zoo.member import Member


def fingerprint(name: str, seed: int, full: bool) -> str:
    """What the member's weights depend on."""
    return Member(get(name), seed, full).fingerprint


def load(name: str, data: str | None, seed: int, full: bool) -> SourceModel:
    """The member `name`, with its own data set, or seeing `data` instead."""
    spec = get(name)
    module, own, record = Member(spec, seed, full).obtain()
    view = View(spec.task, own.processing, own.files.get("tokenizer.json"), own.labels)
    return SourceModel(
        name=spec.name,
        reference=f"zoo:{name}",
        task=spec.task,
        processing=own.processing,
        labels=own.labels,
        module=module,
        graph=None,
        input_names=tuple(own.validation.inputs),
        output_names=("logits",),
        dataset=attach(data, view, f"zoo:{name}") if data else own,
        files=own.files,
        details={key: value for key, value in record.items() if key != "curve"},
    )
