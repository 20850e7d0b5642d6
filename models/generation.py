"""What an encoder-decoder answers in torch, by transformers' own `generate`: the baseline of its evaluation.

Greedy, as the runtime's answers are when they are judged, and as long at most. It serves nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.datasets.dataset import Array
from runtime.manifest import GenerationProcessing
from runtime.processing import load_tokenizer

# An answer that is judged may have so many tokens, or as many as the model's context holds.
ANSWER_TOKENS = 64


def torch_answers(
    module: Any, processing: GenerationProcessing, tokenizer: Path, inputs: dict[str, Array]
) -> dict[str, Array]:
    """Texts, [batch] of str, for input_ids and attention_mask int64 [batch, sequence], under "text"."""
    loaded, start = load_tokenizer(tokenizer), len(processing.start_ids)
    ids, mask = (torch.from_numpy(inputs[name]).to(module.device) for name in ("input_ids", "attention_mask"))
    longest = getattr(module.config, "max_position_embeddings", None) or ANSWER_TOKENS + start
    with torch.inference_mode():
        tokens = module.generate(
            input_ids=ids,
            attention_mask=mask,
            decoder_input_ids=ids.new_tensor([processing.start_ids]).expand(len(ids), -1),
            max_new_tokens=min(ANSWER_TOKENS, longest - start),
            do_sample=False,
            num_beams=1,
            eos_token_id=list(processing.eos_ids) or None,
        )
    texts = [loaded.decode(_until(row, processing.eos_ids)) for row in tokens[:, start:].tolist()]
    return {"text": np.array(texts, object)}


def _until(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
    return tokens[: next((at for at, token in enumerate(tokens) if token in ends), len(tokens))]
