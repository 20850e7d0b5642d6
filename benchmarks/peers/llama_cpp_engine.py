"""llama.cpp through its C interface, with a GGUF file of the same weights. Precisions: q4_0, q8_0."""

import ctypes
import json
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from protocol import PROMPT_TOKENS, prompt, serve, timed
from safetensors.numpy import load_file

MAX_SEQUENCES, BATCH = 32, 2048
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class LlamaCpp:
    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        path = folder / f"{precision}.gguf"
        if not path.is_file():
            write_gguf(folder, path.with_suffix(".partial"), precision)
            path.with_suffix(".partial").rename(path)
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = MAX_SEQUENCES * 256, BATCH, 512
        params.n_seq_max, params.n_threads, params.n_threads_batch = MAX_SEQUENCES, threads, threads
        params.kv_unified = True
        self.context = llama.llama_init_from_model(self.model, params)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def _run(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Evaluate (token, position, sequence, whether its logits are wanted)."""
        self.batch.n_tokens = len(tokens)
        for at, (token, position, sequence, wanted) in enumerate(tokens):
            self.batch.token[at], self.batch.pos[at] = token, position
            self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, sequence
            self.batch.logits[at] = wanted
        if llama.llama_decode(self.context, self.batch):
            raise RuntimeError("llama_decode failed")

    def _clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def prefill(self, tokens: int) -> float:
        self._clear()
        ids = [(token, at, 0, at == tokens - 1) for at, token in enumerate(prompt(tokens))]
        return timed(lambda: (self._run(ids), self._argmax(tokens - 1)))

    def _argmax(self, at: int) -> int:
        row = llama.llama_get_logits_ith(self.context, at)
        return int(
            np.ctypeslib.as_array(
                ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (self.vocabulary,)
            ).argmax()
        )

    def decode(self, batch: int, steps: int) -> float:
        self._clear()
        following = []
        for row in range(batch):
            ids = prompt(PROMPT_TOKENS, row)
            self._run([(token, at, row, at == PROMPT_TOKENS - 1) for at, token in enumerate(ids)])
            following.append(self._argmax(PROMPT_TOKENS - 1))

        def loop() -> None:
            tokens = following
            for step in range(steps):
                self._run([(token, PROMPT_TOKENS + step, row, True) for row, token in enumerate(tokens)])
                tokens = [self._argmax(row) for row in range(batch)]

        return timed(loop)


def write_gguf(folder: Path, path: Path, precision: str) -> None:
    """The safetensors model at `folder` as GGUF without a vocabulary; embeddings in 8 bits, norms in 32."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(path), config["model_type"])
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    kinds = gguf.GGMLQuantizationType
    body = {"q4_0": kinds.Q4_0, "q8_0": kinds.Q8_0}[precision]
    for name, array in load_file(folder / "model.safetensors").items():
        target = _rename(name)
        if config["model_type"] == "llama" and ("q_proj" in name or "k_proj" in name):
            array = _interleave(array, heads if "q_proj" in name else kv_heads)
        kind = kinds.F32 if array.ndim == 1 else kinds.Q8_0 if target.startswith("token") else body
        writer.add_tensor(target, gguf.quants.quantize(array.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rename(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, layer, *rest = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(rest[:-1])]}.{rest[-1]}"


def _interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's Llama turns neighbouring pairs, transformers' the two halves of a head."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


serve(LlamaCpp)
