"""Encoder-decoders with random weights, exported, answer with the very tokens that transformers generates."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from compress.export.encoder_decoder import export_encoder_decoder
from runtime.decoder import Decoder
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler
from runtime.session import open_session

VOCABULARY, CONTEXT, NEW_TOKENS, START = 96, 96, 64, 3
# Random weights say one token for ever; this makes them go through many.
PENALTY = 2.0
SOURCE_LENGTHS = (17, 1, 5, 30)

COMMON = {
    "vocab_size": VOCABULARY,
    "bos_token_id": None,
    "eos_token_id": None,
    "forced_eos_token_id": None,
    "pad_token_id": 1,
    "decoder_start_token_id": START,
    "d_model": 64,
    "tie_word_embeddings": False,
}
BART = COMMON | {
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 96 for part in ("encoder", "decoder")},
    "max_position_embeddings": CONTEXT,
    "init_std": 0.6,
}
T5 = COMMON | {
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "n_positions": CONTEXT,
}
ARCHITECTURES = {
    "bart": BART,
    "marian": BART | {"decoder_vocab_size": VOCABULARY},
    "t5": T5 | {"initializer_factor": 3.0},
    "mt5": T5 | {"initializer_factor": 3.0, "feed_forward_proj": "gated-gelu"},
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(torch model, path of its decoder, its DecoderGraph)."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **ARCHITECTURES[request.param])
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    path = tmp_path_factory.mktemp(request.param) / "decoder.onnx"
    return model, path, export_encoder_decoder(model, path)


def sources() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(4, VOCABULARY, length).tolist() for length in SOURCE_LENGTHS]


def test_a_ragged_batch_decodes_the_tokens_that_transformers_generates(architecture: Any) -> None:
    model, path, graph = architecture
    encoder = open_session(path.with_name(graph.encoder.file), threads=1)
    # Fewer slots than sources: they come and go, and change places.
    decoder = Decoder(open_session(path, threads=1), graph, slots=3, encoder=encoder)
    scheduler = Scheduler(decoder, start_ids=(START,))
    for index, source in enumerate(sources()):
        params = SamplingParams(max_tokens=NEW_TOKENS - 8 * index, temperature=0, repetition_penalty=PENALTY)
        scheduler.add(Request(str(index), source, params))
    decoded: dict[str, list[int]] = {str(index): [] for index in range(len(SOURCE_LENGTHS))}
    while scheduler.has_work:
        for event in scheduler.step():
            assert event.token_id is not None
            decoded[event.request_id].append(event.token_id)
    for index, source in enumerate(sources()):
        generated = model.generate(
            torch.tensor([source]),
            max_new_tokens=NEW_TOKENS - 8 * index,
            do_sample=False,
            num_beams=1,
            repetition_penalty=PENALTY,
        )
        assert decoded[str(index)] == generated[0, 1:].tolist()
    assert len({token for tokens in decoded.values() for token in tokens}) > 5
