from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.errors import ExportError
from compress.export.decoder import export_decoder, kv_layers
from compress.export.feedforward import export_feedforward
from compress.export.parity import check_decoder, check_feedforward
from compress.export.source import export
from models.sources.source import SourceModel
from runtime.manifest import KVLayer

TOKENS = np.random.default_rng(0).integers(0, 96, 64)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def disturb(path: Path) -> None:
    """Change one weight a little, as a wrong exporter or a wrong fusion would."""
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    values = numpy_helper.to_array(weight).copy()
    values.flat[:] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def test_a_decoder_exports_faithfully_and_a_wrong_graph_is_caught(
    llama: Any, decoder_graph: Any, tmp_path: Path
) -> None:
    path, graph = decoder_graph
    assert check_decoder(llama, path, graph, TOKENS)["relative_error"] < 1e-5
    copy = tmp_path / "decoder.onnx"
    copy.write_bytes(path.read_bytes())
    disturb(copy)
    with pytest.raises(ExportError, match="differ from torch's by"):
        check_decoder(llama, copy, graph, TOKENS)


@pytest.mark.parametrize("family", ["qwen2", "gpt_neox"])
def test_other_architectures_export_too(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        use_cache=True,
        **({"num_key_value_heads": 2} if family == "qwen2" else {}),
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    graph = export_decoder(model, tmp_path / "decoder.onnx")
    assert check_decoder(model, tmp_path / "decoder.onnx", graph, TOKENS)["relative_error"] < 1e-4


def test_a_decoder_that_does_not_export_is_one_clear_line(decoder: SourceModel, tmp_path: Path) -> None:
    """As falcon, GPT-J and DeepSeek do not: torch's exporter raised through everything."""
    module: Any = deepcopy(decoder.module)
    module.model.layers[1].mlp = Branching()
    with pytest.raises(ExportError, match="LlamaForCausalLM does not export to ") as caught:
        export(replace(decoder, module=module), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_cache_shape_is_observed(llama: Any) -> None:
    assert kv_layers(llama) == (KVLayer(heads=2, head_dim=8),) * 2


def test_the_model_is_left_as_it_was(llama: Any, decoder_graph: Any) -> None:
    assert llama.config._attn_implementation == "sdpa"
    assert llama(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, 96)


class Encoder(torch.nn.Module):
    """Masked mean of embeddings: padding must not count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.unsqueeze(-1).float()
        return self.head((self.embedding(input_ids) * mask).sum(1) / mask.sum(1))


def test_a_text_model_has_symbolic_batch_and_sequence(tmp_path: Path) -> None:
    inputs = {
        "input_ids": np.random.default_rng(0).integers(0, 50, (4, 9)),
        "attention_mask": (np.arange(9) < np.array([[9], [3], [5], [1]])).astype(np.int64),
    }
    path = tmp_path / "model.onnx"
    export_feedforward(Encoder().eval(), inputs, ["logits"], path, ragged=True)
    assert check_feedforward(Encoder().eval(), path, inputs, ["logits"])["relative_error"] < 1e-5
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [axis.dim_param for axis in shape.dim] == ["batch", "sequence"]
    short = {name: value[:3, :4] for name, value in inputs.items()}
    assert check_feedforward(Encoder().eval(), path, short, ["logits"])["relative_error"] < 1e-5
    disturb(path)
    with pytest.raises(ExportError, match="differ from torch's"):
        check_feedforward(Encoder().eval(), path, inputs, ["logits"])


def test_a_module_that_does_not_export_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Branching does not export to ONNX") as caught:
        export_feedforward(
            Branching(), {"x": np.ones((2, 2), np.float32)}, ["y"], tmp_path / "model.onnx", ragged=False
        )
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
