"""A saved model's own preprocessing files, read into the manifest's terms. It loads no model.

What the manifest cannot express is refused: an approximation would serve other answers than the model's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from models.errors import SourceError
from runtime.manifest import GenerationProcessing, ImageProcessing, TextProcessing
from runtime.processing import load_tokenizer

Json = Mapping[str, Any]
# PIL's resampling numbers, as preprocessor_config.json has them.
_RESAMPLE: dict[int, Literal["nearest", "bilinear", "bicubic"]] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
# What preprocessor_config.json may say besides `size`; anything else must be absent or false.
_IMAGE_KEYS = {
    *(
        "size",
        "resample",
        "do_resize",
        "do_rescale",
        "rescale_factor",
        "do_normalize",
        "image_mean",
        "image_std",
    ),
    *("crop_size", "do_convert_rgb", "image_processor_type", "feature_extractor_type", "processor_class"),
    *("data_format", "default_to_square", "_valid_processor_keys"),
}
# A tokenizer that knows no limit says so with a huge number.
NO_LIMIT = 1_000_000
_LENGTH_KEYS = {"tokenizer_config.json": "model_max_length", "sentence_bert_config.json": "max_seq_length"}
DEFAULT_LENGTH = 512
# What a chat template may name.
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises SourceError where it is missing or malformed."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: missing; give a folder that save_pretrained wrote") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not valid JSON ({error}); save the model again") from None


def image_processing(folder: Path, config: Json) -> ImageProcessing:
    """preprocessor_config.json. Raises SourceError for steps beyond resize, rescale and normalize."""
    path = folder / "preprocessor_config.json"
    stored = read_json(path)
    size = stored.get("size", config.get("image_size"))
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if not isinstance(size, dict) or size.keys() != {"height", "width"}:
        raise SourceError(f"{path}: only a resize to a fixed height and width is supported, not {size}")
    if unknown := [key for key, value in stored.items() if value and key not in _IMAGE_KEYS]:
        raise SourceError(f"{path}: '{unknown[0]}' is not supported; resize, rescale and normalize are")
    if stored.get("resample", 2) not in _RESAMPLE:
        raise SourceError(f"{path}: resample {stored['resample']} is not supported; {[*_RESAMPLE]} are")
    channels = int(config.get("num_channels", 3))
    normalizes = stored.get("do_normalize", True)
    return ImageProcessing(
        mode="L" if channels == 1 else "RGB",
        height=size["height"],
        width=size["width"],
        rescale=stored.get("rescale_factor", 1 / 255) if stored.get("do_rescale", True) else 1.0,
        mean=_channels(stored.get("image_mean", 0.0) if normalizes else 0.0, channels),
        std=_channels(stored.get("image_std", 1.0) if normalizes else 1.0, channels),
        resample=_RESAMPLE[stored.get("resample", 2)],
    )


def text_processing(folder: Path, config: Json, embeds: bool) -> TextProcessing:
    """Length and padding; for an embedding model, also the pooling that sentence-transformers stored."""
    length, pad_id = _max_length(folder, config), config.get("pad_token_id") or 0
    if not embeds:
        return TextProcessing(max_length=length, pad_id=pad_id)
    pooling, normalize = _pooling(folder)
    return TextProcessing(max_length=length, pad_id=pad_id, pooling=pooling, normalize=normalize)


def generation_processing(folder: Path, config: Json, tokenizer: Path) -> GenerationProcessing:
    """The tokens that end a text, and the one that begins it where the tokenizer itself puts it there."""
    path = folder / "generation_config.json"
    stored = dict(config) | (read_json(path) if path.is_file() else {})
    ends = stored.get("eos_token_id")
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    # A configuration made for a vocabulary of one's own still has the tokens of the architecture's default.
    known = config.get("vocab_size", NO_LIMIT)
    first = next(iter(load_tokenizer(tokenizer).encode("a").ids), None)
    return GenerationProcessing(
        bos_id=first if first == stored.get("bos_token_id") else None,
        eos_ids=tuple(end for end in ends if end < known),
        chat_template=chat_template(folder),
        start_ids=_start_ids(stored) if config.get("is_encoder_decoder") else (),
    )


def _start_ids(stored: Json) -> tuple[int, ...]:
    """What an encoder-decoder's answer begins after: its start token, and one that is forced to follow."""
    ids = stored.get("decoder_start_token_id"), stored.get("forced_bos_token_id")
    return tuple(token for token in ids if token is not None)


def chat_template(folder: Path) -> str | None:
    """The tokenizer's chat template, from whichever file has it, with its special tokens written in front."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text("utf-8")
    if not template:
        return None
    tokens = {name: _content(config.get(name)) for name in _SPECIAL_TOKENS if name in template}
    # JSON's strings are Jinja's.
    return "".join(f"{{% set {name} = {json.dumps(token)} %}}" for name, token in tokens.items()) + template


def _content(token: Any) -> str:
    """A special token's text; a newer tokenizer_config.json has it in an object."""
    return str(token["content"] if isinstance(token, dict) else token or "")


def _pooling(folder: Path) -> tuple[Literal["mean", "cls"], bool]:
    """What modules.json and its pooling module say; the mean, unnormalised, where nothing does."""
    if not (folder / "modules.json").is_file():
        return "mean", False
    modules = read_json(folder / "modules.json")
    kinds = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise SourceError(f"{folder / 'modules.json'}: a {unknown.pop()} layer is not supported")
    path = folder / kinds.get("Pooling", "1_Pooling") / "config.json"
    stored = read_json(path)
    named = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    chosen = [name for name, key in named.items() if stored.get(key) or stored.get("pooling_mode") == name]
    if len(chosen) != 1:
        raise SourceError(f"{path}: only mean or cls pooling is supported, one of them")
    return ("mean" if chosen[0] == "mean" else "cls"), "Normalize" in kinds


def _max_length(folder: Path, config: Json) -> int:
    """The least of the limits that the tokenizer, sentence-transformers and the position table declare."""
    limits = [config.get("max_position_embeddings"), config.get("n_positions")]
    for name, key in _LENGTH_KEYS.items():
        if (folder / name).is_file():
            limits.append(read_json(folder / name).get(key))
    return min((int(limit) for limit in limits if limit and 0 < limit < NO_LIMIT), default=DEFAULT_LENGTH)


def _channels(value: float | list[float], count: int) -> tuple[float, ...]:
    return tuple(float(item) for item in value) if isinstance(value, list) else (float(value),) * count
