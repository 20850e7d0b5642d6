import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from models.errors import DataError, SourceError
from models.evaluation import evaluate, torch_predict
from models.sources import load_source, source_fingerprint
from models.sources.source import SourceModel
from runtime.manifest import GenerationProcessing, ImageProcessing, TextProcessing

MakeTokenizer = Callable[[Iterable[str]], Path]
TEXTS = ["good film", "bad film", "good good", "bad bad", "a film"]
BERT = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}
IMAGES = {
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5],
    "image_std": [0.25],
}


@pytest.fixture
def saved(tmp_path: Path, make_tokenizer: MakeTokenizer) -> Callable[[Any], Path]:
    """Save a model and a tokenizer as transformers does."""

    def save(model: Any) -> Path:
        folder = tmp_path / "My_Model"
        model.eval().save_pretrained(folder)
        make_tokenizer(TEXTS).rename(folder / "tokenizer.json")
        return folder

    return save


def run(source: SourceModel, inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    assert source.module is not None
    predict = torch_predict(source.module, source.input_names, source.output_names)
    return predict(inputs)[source.output_names[0]]


def configure(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def sentences(tmp_path: Path) -> str:
    path = tmp_path / "data.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text, "label": int("good" in text)}) + "\n" for text in TEXTS)
    )
    return str(path)


def test_text_classification(saved: Callable[[Any], Path], tmp_path: Path) -> None:
    model = BertForSequenceClassification(BertConfig(**BERT, id2label={0: "bad", 1: "good"}))
    source = load_source(f"hf:{saved(model)}", sentences(tmp_path))
    assert (source.name, source.task, source.labels) == ("my_model", "text-classification", ("bad", "good"))
    assert source.processing == TextProcessing(max_length=24)
    assert list(source.files) == ["tokenizer.json"]
    assert source.dataset is not None
    split = source.dataset.train
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in split.inputs.items()}).logits
    np.testing.assert_allclose(run(source, split.inputs), expected, atol=1e-6)


def test_token_classification(saved: Callable[[Any], Path], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "good film", "labels": ["B", "O"]}\n' * 4)
    folder = saved(BertForTokenClassification(BertConfig(**BERT, id2label={0: "O", 1: "B"})))
    source = load_source(f"hf:{folder}", str(path))
    assert source.task == "token-classification"
    assert source.dataset is not None
    assert run(source, source.dataset.train.inputs).shape == (3, 4, 2)


def test_embeddings_leave_pooling_to_the_runtime(saved: Callable[[Any], Path], shared_data: Path) -> None:
    folder = saved(BertModel(BertConfig(**BERT)))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    source = load_source(f"hf:{folder}", "sts")
    assert source.processing == TextProcessing(max_length=20, pooling="cls", normalize=True)
    assert source.output_names == ("last_hidden_state",)
    assert source.dataset is not None
    assert source.module is not None
    predict = torch_predict(source.module, source.input_names, source.output_names)
    split = source.dataset.validation
    assert -1 <= evaluate(predict, split, "spearman", 256, source.processing).value() <= 1


def test_what_sentence_transformers_saved_embeds_whatever_it_was_before(
    saved: Callable[[Any], Path],
) -> None:
    """Its most used models say that they were trained to fill in masks."""
    folder = saved(BertModel(BertConfig(**BERT)))
    configure(folder, architectures=["BertForMaskedLM"])
    with pytest.raises(SourceError, match="no support for 'BertForMaskedLM'"):
        load_source(f"hf:{folder}")
    (folder / "modules.json").write_text('[{"path": "p", "type": "sentence_transformers.models.Pooling"}]')
    (folder / "p").mkdir()
    (folder / "p" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert load_source(f"hf:{folder}").task == "embedding"


def test_texts_are_as_long_as_positions_that_begin_after_the_paddings(
    saved: Callable[[Any], Path], tmp_path: Path
) -> None:
    folder = saved(RobertaForSequenceClassification(RobertaConfig(**BERT, pad_token_id=1)))
    path = tmp_path / "data.jsonl"
    path.write_text(f"{json.dumps({'text': 'good film ' * 30, 'label': 1})}\n" * 5)
    source = load_source(f"hf:{folder}", str(path))
    assert source.processing == TextProcessing(max_length=22, pad_id=1)
    assert source.dataset is not None
    assert run(source, source.dataset.train.inputs).shape == (4, 2)


def test_texts_are_as_long_as_positions_of_another_name(saved: Callable[[Any], Path]) -> None:
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 20}
    source = load_source(f"hf:{saved(GPT2ForSequenceClassification(GPT2Config(**sizes, pad_token_id=0)))}")
    assert source.processing == TextProcessing(max_length=20)


def test_an_end_that_the_vocabulary_lacks_ends_nothing(saved: Callable[[Any], Path], tmp_path: Path) -> None:
    """GPT-2's default end is token 50256."""
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
    path = tmp_path / "data.tsv"
    path.write_text("good film\n" * 40)
    source = load_source(f"hf:{saved(GPT2LMHeadModel(GPT2Config(**sizes)))}", str(path))
    assert isinstance(source.processing, GenerationProcessing)
    assert source.processing.eos_ids == ()
    assert source.dataset is not None
    assert source.dataset.train.inputs["input_ids"].max() < 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "a model of multi_label_classification"),
        ({"num_labels": 1}, "a model of regression is not supported"),
    ],
)
def test_answers_that_are_no_choice_among_labels_are_refused(
    saved: Callable[[Any], Path], settings: dict[str, Any], message: str
) -> None:
    """Their softmax would be served: of a single number, always one."""
    folder = saved(BertForSequenceClassification(BertConfig(**BERT, **settings)))
    with pytest.raises(SourceError, match=message):
        load_source(f"hf:{folder}")


def test_text_generation_is_the_model_itself(saved: Callable[[Any], Path], tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
        bos_token_id=2,
        eos_token_id=3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    path = tmp_path / "data.tsv"
    path.write_text("good film\n" * 40)
    source = load_source(f"hf:{saved(model)}", str(path))
    assert isinstance(source.module, LlamaForCausalLM)
    assert source.processing == GenerationProcessing(bos_id=2, eos_ids=(3,))
    assert source.dataset is not None
    assert source.dataset.train.inputs["input_ids"].shape[1] == 8
    assert run(source, source.dataset.train.inputs).shape[1:] == (8, 32)


def image_model(folder: Path, **changes: Any) -> nn.Module:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        num_channels=1,
        num_labels=10,
    )
    model: nn.Module = ViTForImageClassification(config).eval()
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES | changes))
    return model


def test_image_classification(tmp_path: Path) -> None:
    model = image_model(tmp_path / "vit")
    source = load_source(f"hf:{tmp_path}/vit", "digits")
    assert source.processing == ImageProcessing(
        mode="L", height=16, width=16, rescale=1 / 255, mean=(0.5,), std=(0.25,)
    )
    assert (source.files, len(source.labels)) == ({}, 10)
    assert source.dataset is not None
    pixels = source.dataset.validation.inputs["pixel_values"][:3]
    with torch.no_grad():
        expected = model(pixel_values=torch.from_numpy(pixels)).logits
    np.testing.assert_allclose(run(source, {"pixel_values": pixels}), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 16}}, "only a resize to a fixed height"),
        ({"do_center_crop": True}, "'do_center_crop' is not supported"),
        ({"resample": 1}, "resample 1 is not supported"),
    ],
)
def test_preprocessing_that_serving_cannot_do_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    image_model(tmp_path / "vit", **changes)
    with pytest.raises(SourceError, match=rf"preprocessor_config\.json: {message}"):
        load_source(f"hf:{tmp_path}/vit")


def test_data_of_another_task_is_refused(tmp_path: Path, saved: Callable[[Any], Path]) -> None:
    folder = saved(BertForSequenceClassification(BertConfig(**BERT)))
    with pytest.raises(DataError, match="holds images"):
        load_source(f"hf:{folder}", "digits")
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 2)))
    with pytest.raises(DataError, match="is for tensor"):
        load_source(f"hf:{folder}", str(tmp_path / "data.npz"))


def test_truncated_weights_are_named(saved: Callable[[Any], Path]) -> None:
    folder = saved(BertForSequenceClassification(BertConfig(**BERT)))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SourceError, match="My_Model: transformers cannot load it") as caught:
        load_source(f"hf:{folder}")
    assert "\n" not in str(caught.value)


def test_weights_that_would_be_random_are_refused(saved: Callable[[Any], Path]) -> None:
    folder = saved(BertModel(BertConfig(**BERT)))
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"has no weights for 'classifier"):
        load_source(f"hf:{folder}")


def test_an_architecture_without_a_task_is_refused(saved: Callable[[Any], Path]) -> None:
    folder = saved(BertModel(BertConfig(**BERT)))
    (folder / "config.json").write_text('{"architectures": ["DetrForObjectDetection"]}')
    with pytest.raises(SourceError, match="no support for 'DetrForObjectDetection'"):
        load_source(f"hf:{folder}")


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": [3]},
        {"id2label": ["a", "b"]},
        {"id2label": {"a": "x", "b": "y"}},
        {"max_position_embeddings": "many"},
        {"pad_token_id": "x"},
        None,
    ],
)
def test_a_configuration_of_another_kind_is_one_clear_line(
    saved: Callable[[Any], Path], changes: dict[str, Any] | None
) -> None:
    folder = saved(BertForSequenceClassification(BertConfig(**BERT)))
    config = json.loads((folder / "config.json").read_text())
    written = [config] if changes is None else config | changes
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(SourceError, match="its configuration holds a value of a wrong kind") as caught:
        load_source(f"hf:{folder}")
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_tokenizer_is_named(saved: Callable[[Any], Path]) -> None:
    folder = saved(BertForSequenceClassification(BertConfig(**BERT)))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"tokenizer\.json: missing"):
        load_source(f"hf:{folder}")
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(SourceError, match=r"tokenizer\.json: not a readable tokenizer"):
        load_source(f"hf:{folder}")


def test_a_folder_that_is_not_there_or_not_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        load_source(f"hf:{tmp_path}/none")
    with pytest.raises(SourceError, match=r"config\.json: missing"):
        load_source(f"hf:{tmp_path}")


def test_an_unreachable_hub_id_is_one_clear_line() -> None:
    with pytest.raises(
        SourceError, match="hf:nobody/nothing: no folder of that name here, and the hub"
    ) as caught:
        load_source("hf:nobody/nothing")
    assert "\n" not in str(caught.value)


def test_the_fingerprint_follows_every_file(saved: Callable[[Any], Path]) -> None:
    folder = saved(BertModel(BertConfig(**BERT)))
    before = source_fingerprint(f"hf:{folder}", None, 0)
    (folder / "notes.txt").write_text("changed")
    assert source_fingerprint(f"hf:{folder}", None, 0) != before
