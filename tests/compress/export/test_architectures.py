"""Architectures with random weights, exported, decode the very tokens that transformers generates."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from compress.errors import ExportError
from compress.export.decoder import export_decoder
from runtime.decoder import Decoder
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler
from runtime.session import open_session

VOCABULARY, CONTEXT, NEW_TOKENS = 96, 96, 64
PROMPT_LENGTHS = (17, 5, 30)

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GATED = COMMON | {"intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16}
WINDOWED = GATED | {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}

# Each with what its attention nodes take over: the rotation, and query, key and value as one packed tensor.
ARCHITECTURES = {
    "llama": (GATED, "packed"),
    "qwen2": (GATED, "packed"),
    "qwen3": (GATED, "rotary"),
    "mistral": (GATED | {"sliding_window": 12}, "packed"),
    "smollm3": (GATED | {"no_rope_layers": [1, 0]}, "some"),
    "phi3": (GATED, "rotary"),
    "gemma": (GATED, "packed"),
    "gemma2": (WINDOWED | {"query_pre_attn_scalar": 16}, "packed"),
    "gemma3_text": (WINDOWED | {"query_pre_attn_scalar": 16}, "rotary"),
    "olmo": (GATED, "packed"),
    "gpt_neox": (COMMON | {"intermediate_size": 96, "hidden_size": 256}, "rotary"),
    "cohere": (GATED, "plain"),
    "gpt2": (COMMON, "plain"),
    "mixtral": (GATED | {"num_local_experts": 4}, "packed"),
    "qwen3_moe": (
        GATED | {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2},
        "rotary",
    ),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(torch model, path of its graph, its DecoderGraph, what its attention nodes should have taken over)."""
    settings, fused = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    path = tmp_path_factory.mktemp(request.param) / "decoder.onnx"
    return model, path, export_decoder(model, path), fused


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCABULARY, length).tolist() for length in PROMPT_LENGTHS]


def test_a_ragged_batch_decodes_the_tokens_that_transformers_generates(architecture: Any) -> None:
    model, path, graph, _ = architecture
    scheduler = Scheduler(Decoder(open_session(path, threads=1), graph, len(PROMPT_LENGTHS)))
    for index, prompt in enumerate(prompts()):
        scheduler.add(Request(str(index), prompt, SamplingParams(max_tokens=NEW_TOKENS, temperature=0)))
    decoded: dict[str, list[int]] = {str(index): [] for index in range(len(PROMPT_LENGTHS))}
    while scheduler.has_work:
        for event in scheduler.step():
            assert event.token_id is not None
            decoded[event.request_id].append(event.token_id)
    for prompt, tokens in zip(prompts(), decoded.values(), strict=True):
        generated = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
        assert tokens == generated[0, len(prompt) :].tolist()


def test_attention_takes_over_what_its_kernel_can(architecture: Any) -> None:
    _, path, _, fused = architecture
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "GroupQueryAttention"]
    turning = [node for node in nodes if any(a.name == "do_rotary" and a.i for a in node.attribute)]
    packed = [node for node in nodes if not node.input[1]]
    expected = {"packed": (2, 2), "rotary": (2, 0), "some": (1, 2), "plain": (0, 0)}[fused]
    assert (len(turning), len(packed)) == expected


@pytest.mark.parametrize("name", ["bloom", "falcon"])
def test_a_decoder_whose_attention_is_its_own_is_named(name: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(name, **COMMON)
    with pytest.raises(ExportError, match="ForCausalLM does not ") as caught:
        export_decoder(AutoModelForCausalLM.from_config(config).eval(), tmp_path / "decoder.onnx")
    assert "\n" not in str(caught.value)
