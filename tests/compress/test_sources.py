"""Every kind of source becomes a bundle that answers as the model did in torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.pipeline import run
from compress.recipe import parse_recipe
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams
from runtime.tensor import TensorModel

TEXTS = ["a fine day", "no", "the quick brown fox jumps over it"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPRESS_HOME", str(tmp_path / "cache"))


def bundle_of(folder: Path, **more: str) -> Any:
    """The fp32 bundle of a Hugging Face folder."""
    return run(parse_recipe(json.dumps({"model": f"hf:{folder}", **more}))).bundle


def save_tokenizer(folder: Path) -> Any:
    """A word tokenizer with BERT's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *" ".join(TEXTS).split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    return fast


def bert_config(**more: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        **more,
    )


def in_torch(model: Any, tokenizer: Any, field: str) -> np.ndarray:
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = model.eval()(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return getattr(output, field).numpy()


def test_text_classification(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(id2label={0: "bad", 1: "good"}, label2id={"bad": 0}))
    model.save_pretrained(tmp_path / "bert")
    wanted = in_torch(model, save_tokenizer(tmp_path / "bert"), "logits")
    served = load_model(bundle_of(tmp_path / "bert"), threads=1)
    assert isinstance(served, TensorModel)
    answers = served.predict(TEXTS)
    for answer, logits in zip(answers, wanted, strict=True):
        assert answer["label"] == ("bad", "good")[logits.argmax()]
        assert answer["probability"] == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), rel=1e-4)


def test_token_classification(tmp_path: Path) -> None:
    from transformers import BertForTokenClassification

    torch.manual_seed(0)
    model = BertForTokenClassification(bert_config(num_labels=3))
    model.save_pretrained(tmp_path / "bert")
    wanted = in_torch(model, save_tokenizer(tmp_path / "bert"), "logits")
    served = load_model(bundle_of(tmp_path / "bert"), threads=1)
    assert isinstance(served, TensorModel)
    for answer, text, logits in zip(served.predict(TEXTS), TEXTS, wanted, strict=True):
        tokens = answer["tokens"]
        assert [token["token"] for token in tokens] == text.split()
        tagged = [int(token["label"].removeprefix("LABEL_")) for token in tokens]
        assert tagged == logits[1 : len(tokens) + 1].argmax(-1).tolist()


def test_embeddings(tmp_path: Path) -> None:
    from transformers import BertModel

    torch.manual_seed(0)
    model = BertModel(bert_config())
    model.save_pretrained(tmp_path / "bert")
    tokenizer = save_tokenizer(tmp_path / "bert")
    hidden = in_torch(model, tokenizer, "last_hidden_state")
    mask = tokenizer(TEXTS, padding=True, return_tensors="np")["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    served = load_model(bundle_of(tmp_path / "bert"), threads=1)
    assert isinstance(served, TensorModel)
    got = np.array([answer["embedding"] for answer in served.predict(TEXTS)])
    cosines = (got * mean).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(mean, axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


def test_image_classification(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        id2label={0: "cat", 1: "dog"},
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    processing = {
        "do_resize": True,
        "size": {"height": 16, "width": 16},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor",
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processing))
    served = load_model(bundle_of(tmp_path / "vit"), threads=1)
    assert isinstance(served, TensorModel)
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    pixels = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1)
    with torch.inference_mode():
        wanted = torch.softmax(model(pixels).logits, -1)[0]
    answer = served.predict([image])[0]
    assert answer["scores"] == pytest.approx({"cat": wanted[0].item(), "dog": wanted[1].item()}, rel=1e-4)


def test_causal_language_model(tmp_path: Path, llama: Any, tokenizer_file: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    llama.save_pretrained(tmp_path / "llama")
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), eos_token="<end>").save_pretrained(
        tmp_path / "llama"
    )
    (tmp_path / "texts.tsv").write_text(
        "".join(f"text number {number} and more of it\n" for number in range(400))
    )
    bundle = bundle_of(tmp_path / "llama", data=str(tmp_path / "texts.tsv"))
    served = load_model(bundle, threads=1)
    assert isinstance(served, TextModel)
    prompt = served.encode("text")
    with torch.inference_mode():
        tokens = llama.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    text = "".join(served.generate("text", SamplingParams(max_tokens=12, temperature=0)))
    assert served.tokenizer.decode(tokens[0, len(prompt) :].tolist()).startswith(text)
    assert bundle.manifest.evidence.quality.metric == "perplexity"


def test_an_onnx_file(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy")
    graph = helper.make_graph([node], "relu", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        tmp_path / "relu.onnx",
    )
    bundle = run(parse_recipe(json.dumps({"model": f"onnx:{tmp_path / 'relu.onnx'}"}))).bundle
    served = load_model(bundle, threads=1)
    assert isinstance(served, TensorModel)
    np.testing.assert_array_equal(served.run({"x": np.float32([[-1, 0, 2]])})["y"], [[0, 0, 2]])
