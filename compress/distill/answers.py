"""What the teacher says, computed once: its likeliest answers, its vectors, or texts of its own.

Each is kept in the cache of stages, under a key of the teacher's weights, the data and the settings, and
comes back as a source whose training split has it. The trade-off: disk (8 bytes for each answer that is kept)
for one pass of the teacher instead of one a step.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.cache import library_versions, run_stage
from compress.dependencies import code_of
from compress.distill.config import CachedConfig, SequencesConfig
from compress.errors import StepError
from models.datasets.dataset import IGNORED, Array, Split
from models.objectives import forward
from models.sources.factory import defining_files
from models.sources.source import SourceModel
from models.storage import arrays_digest, file_digest
from models.training import Batch
from runtime.manifest import TextProcessing

TOKENS, SCORES = "teacher_tokens", "teacher_scores"
ROWS = 16

Arrays = Mapping[str, Array]


def with_answers(source: SourceModel, config: CachedConfig, temperature: float) -> SourceModel:
    """`source`, whose training inputs are joined by its own module's `top_k` likeliest answers.

    They are [..., k]: class numbers, and log-probabilities float32 at `temperature`.
    """
    split = _train(source)

    def answer(batch: Batch) -> dict[str, Tensor]:
        logits = forward(_module(source), batch).float()
        scores, tokens = (logits / temperature).log_softmax(-1).topk(min(config.top_k, logits.shape[-1]))
        return {TOKENS: tokens.int(), SCORES: scores}

    found = _stored(source, f"answers-{config.top_k}-{temperature}", lambda: _over(split, source, answer))
    return _with_train(source, replace(split, inputs={**split.inputs, **found}))


def with_vectors(source: SourceModel) -> SourceModel:
    """`source`, whose training targets are its own module's pooled vectors, float32 [rows, width]."""
    split, processing = _train(source), source.processing
    if not isinstance(processing, TextProcessing):
        raise StepError(f"{source.reference}: distill embeds texts, and this model takes none")

    def embed(batch: Batch) -> dict[str, Tensor]:
        return {"vectors": pooled(forward(_module(source), batch), batch["attention_mask"], processing)}

    found = _stored(source, "vectors", lambda: _over(split, source, embed))
    return _with_train(source, replace(split, targets=found["vectors"]))


def with_sequences(source: SourceModel, config: SequencesConfig, seed: int) -> SourceModel:
    """`source`, whose training split is what its own module writes; the prompts are no targets."""
    check_prompt(source, config)
    windows = _train(source).inputs[source.input_names[0]]
    length = windows.shape[1]

    def write() -> Arrays:
        rng = np.random.default_rng(seed)
        prompts = windows[rng.integers(0, len(windows), config.count), : config.prompt]
        return {"tokens": generated(source, prompts, length + 1, config.temperature, seed)}

    tokens = _stored(source, f"sequences-{config.model_dump_json()}-{seed}", write)["tokens"]
    targets = np.array(tokens[:, 1:])
    targets[:, : config.prompt - 1] = IGNORED
    return _with_train(source, Split({source.input_names[0]: np.array(tokens[:, :-1])}, targets))


def check_prompt(source: SourceModel, config: SequencesConfig) -> None:
    """Raises StepError for prompts as long as the windows of the training split."""
    length = _train(source).inputs[source.input_names[0]].shape[1]
    if config.prompt >= length:
        raise StepError(f"distill: sequences: a prompt of {config.prompt} leaves no room in {length} tokens")


def generated(source: SourceModel, prompts: Array, length: int, temperature: float, seed: int) -> Array:
    """`prompts` int64 [rows, n] continued to [rows, length] by the module, drawn by seed, with its KV cache.

    Texts go on past their end, as the windows of the training split do. Raises StepError for a module without
    a cache.
    """
    generator = torch.Generator().manual_seed(seed)
    whole = torch.from_numpy(np.ascontiguousarray(prompts))
    parts = [whole[start : start + ROWS] for start in range(0, len(whole), ROWS)]
    return torch.cat([_continued(source, part, length, temperature, generator) for part in parts]).numpy()


def _continued(
    source: SourceModel, prompts: Tensor, length: int, temperature: float, generator: torch.Generator
) -> Tensor:
    module, tokens, cache = _module(source), prompts, None
    with torch.inference_mode():
        for _ in range(length - prompts.shape[1]):
            fresh = tokens if cache is None else tokens[:, -1:]
            try:
                output = module(input_ids=fresh, past_key_values=cache, use_cache=True)
                logits, cache = output.logits[:, -1].float(), output.past_key_values
            except (TypeError, AttributeError):
                raise StepError(
                    f"{source.reference}: sequences need a language model of transformers, with a KV cache"
                ) from None
            tokens = torch.cat([tokens, _drawn(logits, temperature, generator)], 1)
    return tokens


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)


def pooled(hidden: Tensor, mask: Tensor, processing: TextProcessing) -> Tensor:
    """`runtime.processing.pool` for tensors: [batch, sequence, width] to [batch, width]."""
    if processing.pooling == "none":
        return hidden
    kept = mask[..., None].to(hidden.dtype)
    mean = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)
    vectors = hidden[:, 0] if processing.pooling == "cls" else mean
    return nn.functional.normalize(vectors, dim=-1) if processing.normalize else vectors


def taken_apart(batch: Batch) -> tuple[Batch, Tensor, Tensor]:
    """What goes into the student, and the teacher's answers: tokens int64 and scores, [..., k]."""
    inputs = {name: value for name, value in batch.items() if name not in (TOKENS, SCORES)}
    return inputs, batch[TOKENS].long(), batch[SCORES]


def _over(split: Split, source: SourceModel, compute: Callable[[Batch], dict[str, Tensor]]) -> Arrays:
    """`compute` of every row of the split, a few rows at a time."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(split), ROWS):
            rows = slice(start, start + ROWS)
            batch = {name: torch.from_numpy(split.inputs[name][rows]) for name in source.input_names}
            parts.append(compute(batch))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _stored(source: SourceModel, what: str, make: Callable[[], Arrays]) -> dict[str, Array]:
    """The arrays of `make`, by content: made once for one teacher, data and `what`."""
    assert source.dataset is not None
    data = arrays_digest(_train(source).inputs)
    teacher = arrays_digest({name: value.numpy() for name, value in _module(source).state_dict().items()})

    def write(folder: Path) -> dict[str, int]:
        arrays = make()
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return {name: array.nbytes for name, array in arrays.items()}

    inputs = {
        "what": what,
        "teacher": teacher,
        "computes": _computation(source),
        "data": data,
        "code": code_of(__name__),
        "versions": dict(library_versions()),
    }
    stage = run_stage("teacher", inputs, write)
    return {name: np.load(stage.folder / f"{name}.npy", mmap_mode="r") for name in stage.figures}


def _computation(source: SourceModel) -> list[str]:
    """What the teacher makes of its weights: structure, configuration, the code of its layers, pooling."""
    module = _module(source)
    settings = (repr(part.config) for part in module.modules() if hasattr(part, "config"))
    code = map(file_digest, defining_files(module))
    return [repr(module), next(settings, ""), *code, repr(source.processing)]


def _with_train(source: SourceModel, split: Split) -> SourceModel:
    dataset = source.dataset
    assert dataset is not None
    changed = replace(dataset, load=lambda name: split if name == "train" else dataset.validation)
    return replace(source, dataset=changed)


def _train(source: SourceModel) -> Split:
    assert source.dataset is not None
    return source.dataset.train


def _module(source: SourceModel) -> nn.Module:
    assert source.module is not None
    return source.module
