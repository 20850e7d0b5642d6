"""`hf:FOLDER_OR_ID`: a model saved by transformers, through its Auto classes. Offline when it is a folder.

The task follows from `architectures` in config.json. Only safetensors weights and fast tokenizers (a
tokenizer.json) are read, and code that a repository brings is never run. Preprocessing that
`runtime.manifest` cannot express is refused rather than approximated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.datasets import View
from models.errors import MissingExtra, SourceError, one_line
from models.sources.processing import (
    NO_LIMIT,
    generation_processing,
    image_processing,
    read_json,
    text_processing,
)
from models.sources.source import SourceModel, attach, bundle_name
from models.storage import digest, file_digest, versions
from runtime.manifest import Processing, Task, TextProcessing
from runtime.processing import load_tokenizer

if TYPE_CHECKING:
    from torch import nn

TOKENIZER = "tokenizer.json"
# What a hub id is asked for; never pickles, never code.
PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*/config.json")
# A window of a text-generation split; longer ones cost memory and change little.
WINDOW = 256
# The only kind of classification that the manifest can express.
CHOICE = "single_label_classification"
GENERATES: tuple[Task, ...] = ("text-generation", "text2text-generation")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one task's models are loaded: transformers' Auto class, the inputs, and the output that is kept."""

    task: Task
    auto: str
    inputs: tuple[str, ...]
    output: str = "logits"


_IMAGE = ("pixel_values",)
_TEXT = ("input_ids", "attention_mask")
# By the ending of the architecture's name; the first that fits.
_KINDS = {
    "ForSequenceClassification": _Kind("text-classification", "AutoModelForSequenceClassification", _TEXT),
    "ForTokenClassification": _Kind("token-classification", "AutoModelForTokenClassification", _TEXT),
    "ForImageClassification": _Kind("image-classification", "AutoModelForImageClassification", _IMAGE),
    "ForConditionalGeneration": _Kind("text2text-generation", "AutoModelForSeq2SeqLM", ("input_ids",)),
    "MTModel": _Kind("text2text-generation", "AutoModelForSeq2SeqLM", ("input_ids",)),
    "ForCausalLM": _Kind("text-generation", "AutoModelForCausalLM", ("input_ids",)),
    "LMHeadModel": _Kind("text-generation", "AutoModelForCausalLM", ("input_ids",)),
    "Model": _Kind("embedding", "AutoModel", _TEXT, "last_hidden_state"),
}


def fingerprint(place: str, seed: int, full: bool) -> str:
    """sha256 over every file of the folder, and transformers' version."""
    folder = _folder(place)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [part for path in files for part in (path.relative_to(folder).as_posix(), file_digest(path))]
    return digest(*parts, repr(versions(["torch", "transformers"])))


def load(place: str, data: str | None, seed: int, full: bool) -> SourceModel:
    """The model in the folder `place`, or of that id on the hub. Raises SourceError for what is
    unreadable.
    """
    folder = _folder(place)
    config = read_json(folder / "config.json")
    reference = f"hf:{place}"
    with _as_transformers_writes(folder):
        kind = _kind(config, folder)
        tokenizer = None if kind.task == "image-classification" else _tokenizer(folder)
        processing = _processing(kind.task, folder, config, tokenizer)
        labels = _labels(config, folder) if kind.task.endswith("classification") else ()
        window = min(WINDOW, config.get("max_position_embeddings") or config.get("n_positions") or WINDOW)
    module = _module(kind, folder)
    processing = _within_positions(processing, module)
    view = View(kind.task, processing, tokenizer, labels, window)
    return SourceModel(
        name=bundle_name(Path(place).name),
        reference=reference,
        task=kind.task,
        processing=processing,
        labels=labels,
        module=module,
        graph=None,
        input_names=kind.inputs,
        output_names=(kind.output,),
        dataset=attach(data, view, reference) if data else None,
        files={TOKENIZER: tokenizer} if tokenizer else {},
        details={"architecture": config["architectures"][0]},
    )


@contextmanager
def _as_transformers_writes(folder: Path) -> Iterator[None]:
    """Raises SourceError where a configuration holds another kind of value than it has to."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{folder}: its configuration holds a value of a wrong kind ({one_line(error, 200)}); "
            "save the model again"
        ) from None


def _module(kind: _Kind, folder: Path) -> nn.Module:
    try:
        import transformers
    except ImportError:
        raise MissingExtra("hf: sources need transformers; pip install 'modelpress[compress]'") from None
    import torch
    from safetensors import SafetensorError

    from models.sources.wrappers import EncoderModule, ImageModule

    try:
        loaded: tuple[nn.Module, dict[str, Any]] = getattr(transformers, kind.auto).from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SourceError(f"{folder}: transformers cannot load it: {reason}; save the model again") from None
    model, report = loaded
    _check_complete(report, folder)
    model.eval()
    if kind.task in GENERATES:
        return model
    return ImageModule(model) if kind.task == "image-classification" else EncoderModule(model, kind.output)


def _check_complete(report: Mapping[str, Any], folder: Path) -> None:
    """Weights that the files lack would be random. A pooler's are not used: pooling is the runtime's."""
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise SourceError(f"{folder}: has no weights for '{missing[0]}'; give a folder with the whole model")


def _within_positions(processing: Processing, module: nn.Module) -> Processing:
    """`processing` with texts no longer than there are positions.

    Of a table that knows padding, as RoBERTa's, positions begin after the padding's.
    """
    if not isinstance(processing, TextProcessing):
        return processing
    lengths = [
        int(table.num_embeddings) - int(table.padding_idx) - 1
        for name, table in module.named_modules()
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None
    ]
    return processing.model_copy(update={"max_length": min(processing.max_length, *lengths, NO_LIMIT)})


def _kind(config: Mapping[str, Any], folder: Path) -> _Kind:
    """By the architecture; what sentence-transformers saved embeds, whatever it was trained as before."""
    architecture = next(iter(config.get("architectures") or ()), "")
    for ending, kind in _KINDS.items():
        if architecture.endswith(ending):
            return kind
    if (folder / "modules.json").is_file():
        return _KINDS["Model"]
    known = ", ".join(f"*{ending}" for ending in _KINDS)
    raise SourceError(f"{folder / 'config.json'}: no support for '{architecture}', only for {known}")


def _processing(task: Task, folder: Path, config: Mapping[str, Any], tokenizer: Path | None) -> Processing:
    if tokenizer is None:
        return image_processing(folder, config)
    if task in GENERATES:
        return generation_processing(folder, config, tokenizer)
    return text_processing(folder, config, embeds=task == "embedding")


def _tokenizer(folder: Path) -> Path:
    path = folder / TOKENIZER
    if not path.is_file():
        raise SourceError(f"{path}: missing; save the model's fast tokenizer beside it")
    try:
        load_tokenizer(path)
    except Exception as error:  # tokenizers raises nothing narrower
        raise SourceError(f"{path}: not a readable tokenizer ({error}); save it again") from None
    return path


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The labels' names in order. Raises SourceError for a model whose answer is not one of several."""
    count = config.get("num_labels", 2)
    names = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(count)}
    labels = tuple(names[index] for index in sorted(names, key=int))
    kind = config.get("problem_type") or ("regression" if len(labels) == 1 else CHOICE)
    if kind != CHOICE:
        raise SourceError(
            f"{folder / 'config.json'}: a model of {kind} is not supported, only of one label among several"
        )
    return labels


def _folder(place: str) -> Path:
    """The folder itself, or the snapshot of a hub id."""
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    if place.startswith((".", "/", "~")) or place.count("/") > 1:
        raise SourceError(f"{path}: no such folder")
    return _snapshot(place)


def _snapshot(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtra("hf: sources need transformers; pip install 'modelpress[compress]'") from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(PATTERNS)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SourceError(
            f"hf:{name}: no folder of that name here, and the hub did not give it ({reason}); "
            "give a folder, or try again with a network"
        ) from None
