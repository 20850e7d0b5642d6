"""One member, shown: its layers, and a held-out example with its answer.

The answer is put into words by `runtime.answers`, as the service's are. It trains nothing: a member that is
not trained yet has no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from models.registry import ModelSpec
from models.zoo.member import Member, build

if TYPE_CHECKING:
    from models.sources.source import SourceModel

PROMPT_TOKENS, ANSWER_TOKENS = 32, 24
# An answer is for reading: long lists are cut, with a word on how long they are.
SHOWN_ITEMS, SHOWN_TEXT = 12, 400
SHOWN_PIXELS = 32
INK = ".:-=+*#%@"


def architecture(spec: ModelSpec) -> list[str]:
    """`name: Type, parameters` of each part that has weights and no parts with weights of its own."""
    lines = []
    for name, part in build(spec).named_modules():
        count = sum(parameter.numel() for parameter in part.parameters(recurse=False))
        if count:
            lines.append(f"{name or spec.name}: {type(part).__name__}, {count:,}")
    return lines


def sample(spec: ModelSpec, seed: int) -> dict[str, Any] | None:
    """A held-out example and what the trained member answers to it; None before it is trained."""
    from models.sources.zoo import as_source

    member = Member(spec, seed)
    record = member.record()
    if record is None:
        return None
    module, dataset, _ = member.obtain()
    source = as_source(spec, module, dataset, {})
    if spec.task == "text-generation":
        return _continued(source)
    raw = dataset.validation.raw
    return {
        "input": _shown(raw[0]) if raw else "the first held-out example",
        "answer": _shortened(_answer(source)),
    }


def _answer(source: SourceModel) -> Any:
    from models.evaluation import torch_predict
    from runtime.answers import Run, answer
    from runtime.processing import load_tokenizer

    assert source.dataset is not None
    assert source.module is not None
    inputs = {name: source.dataset.validation.inputs[name][:1] for name in source.input_names}
    names = (source.input_names, source.output_names)
    file = source.files.get("tokenizer.json")
    outputs = torch_predict(source.module, *names, source.processing, file)(inputs)
    if source.task == "text2text-generation":
        return outputs["text"][0]
    tokenizer = load_tokenizer(file) if file else None
    items = (source.dataset.validation.raw or ())[:1]
    about = (source.task, source.processing, source.labels)
    return answer(Run(*about, inputs, outputs, tokenizer, items))[0]


def _continued(source: SourceModel) -> dict[str, Any]:
    """The beginning of a held-out text, and the likeliest tokens after it."""
    import torch

    from runtime.processing import load_tokenizer

    assert source.dataset is not None
    module: Any = source.module
    tokenizer = load_tokenizer(source.files["tokenizer.json"])
    prompt = source.dataset.validation.inputs["input_ids"][0, :PROMPT_TOKENS].tolist()
    tokens = list(prompt)
    for _ in range(ANSWER_TOKENS):
        with torch.inference_mode():
            tokens.append(int(module(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return {"input": tokenizer.decode(prompt), "answer": tokenizer.decode(tokens[len(prompt) :])}


def _shown(example: Any) -> Any:
    """A picture as rows of characters; anything else as it is, shortened."""
    if not isinstance(example, Image):
        return _shortened(example)
    size = (min(example.width, SHOWN_PIXELS), min(example.height, SHOWN_PIXELS))
    pixels = np.asarray(example.convert("L").resize(size), np.int64)
    return "\n".join("".join(INK[value * (len(INK) - 1) // 255] * 2 for value in row) for row in pixels)


def _shortened(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _shortened(value[:, :SHOWN_ITEMS].tolist() if value.ndim > 1 else value.tolist())
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, str):
        return value if len(value) <= SHOWN_TEXT else f"{value[:SHOWN_TEXT]}… ({len(value)} characters)"
    if isinstance(value, list) and len(value) > SHOWN_ITEMS:
        return [*(_shortened(item) for item in islice(value, SHOWN_ITEMS)), f"… ({len(value)} in all)"]
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
