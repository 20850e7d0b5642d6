"""Shrunk transformers compute what masked ones do; the mask is put on what writes the units."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.export.decoder import export_decoder
from compress.export.parity import check_decoder
from compress.shrink.surgery import drop_layers, resize, stored_layers
from compress.shrink.transformer import ffn_units, head_units, layer_of, layer_units
from compress.shrink.units import Removal, cut_out
from runtime.manifest import KVLayer


def cut(model: Any, removals: list[Removal]) -> Any:
    smaller = deepcopy(model)
    state = cut_out(model.state_dict(), removals)
    resize(smaller, {name: tuple(tensor.shape) for name, tensor in state.items()})
    smaller.load_state_dict(state)
    return smaller


def logits(model: Any) -> Tensor:
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 64, (3, 11)))
    with torch.no_grad():
        result: Tensor = model(input_ids=tokens).logits
    return result


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_grouped_query_decoder(llama: Any) -> None:
    """A key-value head whose values are zero adds nothing, nor does a neuron whose `up` is zero."""
    heads, neurons = head_units(llama), ffn_units(llama)
    assert [(units.name, units.count) for units in heads + neurons] == [
        ("model.layers.0.self_attn", 2),
        ("model.layers.1.self_attn", 2),
        ("model.layers.0.mlp", 64),
        ("model.layers.1.mlp", 64),
    ]
    gone = torch.arange(0, 64, 3)
    smaller = cut(llama, [(heads[0], torch.tensor([0])), (neurons[0], gone), (neurons[1], gone[:5])])
    masked = deepcopy(llama)
    masked.model.layers[0].self_attn.v_proj.weight.data[:8] = 0
    masked.model.layers[0].mlp.up_proj.weight.data[gone] = 0
    masked.model.layers[1].mlp.up_proj.weight.data[gone[:5]] = 0
    torch.testing.assert_close(logits(smaller), logits(masked), rtol=1e-5, atol=1e-5)
    assert parameters(smaller) < parameters(llama)
    attention = smaller.model.layers[0].self_attn
    assert (attention.q_proj.out_features, attention.k_proj.out_features) == (16, 8)
    assert attention.num_key_value_groups == 2


def test_an_encoder(bert: Any) -> None:
    """With biases everywhere, and without grouped queries."""
    heads, neurons = head_units(bert), ffn_units(bert)
    gone, some = torch.tensor([0, 2]), torch.arange(0, 48, 2)
    smaller = cut(bert, [(heads[1], gone), (neurons[0], some)])
    masked = deepcopy(bert)
    value = masked.bert.encoder.layer[1].attention.self.value
    for head in gone:
        value.weight.data[head * 8 : head * 8 + 8] = 0
        value.bias.data[head * 8 : head * 8 + 8] = 0
    dense = masked.bert.encoder.layer[0].intermediate.dense
    dense.weight.data[some], dense.bias.data[some] = 0, 0
    torch.testing.assert_close(logits(smaller), logits(masked), rtol=1e-5, atol=1e-5)
    attention = smaller.bert.encoder.layer[1].attention.self
    assert (attention.num_attention_heads, attention.all_head_size) == (2, 16)
    assert smaller.bert.encoder.layer[0].intermediate.dense.out_features == 24


@pytest.mark.parametrize("kept", [[0], [1]])
def test_a_dropped_layer_is_the_identity(llama: Any, bert: Any, kept: list[int]) -> None:
    for model, place in ((llama, "model.layers"), (bert, "bert.encoder.layer")):
        skipping, smaller = deepcopy(model), deepcopy(model)
        gone = skipping.get_submodule(place)[1 - kept[0]]
        gone.register_forward_hook(lambda layer, inputs, output: inputs[0])
        drop_layers(smaller, kept)
        torch.testing.assert_close(logits(smaller), logits(skipping), rtol=1e-5, atol=1e-5)
        assert smaller.config.num_hidden_layers == 1
        attention = smaller.get_submodule(place)[0]
        assert [part.layer_idx for part in attention.modules() if hasattr(part, "layer_idx")] == [0]


def test_the_stored_names_tell_the_layers(llama: Any) -> None:
    smaller = deepcopy(llama)
    drop_layers(smaller, [1])
    shapes = {name: tuple(tensor.shape) for name, tensor in smaller.state_dict().items()}
    assert stored_layers(llama, shapes) == 1
    assert layer_of(llama, ffn_units(llama)[1]) == 1


def test_the_configuration_says_what_all_layers_have_in_common(llama: Any) -> None:
    heads, neurons = head_units(llama), ffn_units(llama)
    alike = cut(llama, [(units, torch.tensor([1])) for units in heads + neurons])
    config = alike.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 8)
    assert config.intermediate_size == 63
    rebuilt = type(alike)(config)
    rebuilt.load_state_dict(alike.state_dict())
    torch.testing.assert_close(logits(rebuilt.eval()), logits(alike))
    differing = cut(llama, [(heads[0], torch.tensor([1])), (neurons[0], torch.tensor([1]))]).config
    assert (differing.num_key_value_heads, differing.intermediate_size) == (2, 64)


def test_a_decoder_of_different_layers_exports_with_its_cache_and_quantizes(tmp_path: Path) -> None:
    """The first of three layers dropped, and the two that stay cut to different sizes."""
    from compress.quantize.step import run
    from compress.step import Calibration, validate
    from runtime.decoder import score
    from runtime.manifest import Signature
    from runtime.session import open_session

    torch.manual_seed(0)
    model = tiny("Llama", layers=3, initializer_range=0.2)
    heads, neurons = head_units(model), ffn_units(model)
    smaller = cut(model, [(heads[2], torch.tensor([0])), (neurons[1], torch.arange(32))])
    drop_layers(smaller, [1, 2])
    graph = export_decoder(smaller, tmp_path / "decoder.onnx")
    assert graph.layers == (KVLayer(heads=2, head_dim=8), KVLayer(heads=1, head_dim=8))
    tokens = np.random.default_rng(0).integers(0, 64, 60)
    assert check_decoder(smaller, tmp_path / "decoder.onnx", graph, tokens)["relative_error"] < 1e-5
    (tmp_path / "int8").mkdir()
    whole = GraphArtifact(tmp_path, graph, Signature(inputs=(), outputs=()))
    config = validate({"method": "quantize", "scheme": "int8-dynamic"})
    small, _ = run(config, whole, tmp_path / "int8", Calibration(lambda samples: iter(())))
    assert small.size_bytes < whole.size_bytes
    wanted, got = (score(open_session(each.path, threads=1), graph, tokens[None]) for each in (whole, small))
    assert np.linalg.norm(got - wanted) < 0.1 * np.linalg.norm(wanted)


def test_fused_projections_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=16, n_positions=8))
    with pytest.raises(StepError, match="GPT2LMHeadModel: no attention of a known form"):
        head_units(model)
    with pytest.raises(StepError, match="GPT2LMHeadModel: no feed-forward block of a known form"):
        ffn_units(model)


def tiny(family: str, layers: int = 2, **more: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        **more,
    )
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def test_norms_of_one_head_stay_and_norms_across_heads_are_refused() -> None:
    model = tiny("Qwen3")
    heads = head_units(model)
    smaller = cut(model, [(heads[0], torch.tensor([1]))])
    masked = deepcopy(model)
    masked.model.layers[0].self_attn.v_proj.weight.data[8:] = 0
    torch.testing.assert_close(logits(smaller), logits(masked), rtol=1e-5, atol=1e-5)
    with pytest.raises(StepError, match=r"q_norm\.weight spans several heads; leave out 'heads'"):
        head_units(tiny("Olmo2"))


def test_layers_of_different_types_are_not_dropped() -> None:
    model = tiny("Qwen3", layer_types=["full_attention", "sliding_attention"], use_sliding_window=True)
    with pytest.raises(
        StepError, match=r"model\.layers: layers of different types \(full_attention, sliding"
    ):
        layer_units(model)
