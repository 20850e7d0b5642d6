"""transformers on torch: the model as its authors run it. Precisions: fp32, bf16."""

from pathlib import Path

import torch
from protocol import PROMPT_TOKENS, prompt, serve, timed
from transformers import AutoModelForCausalLM


class Transformers:
    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        torch.set_num_threads(threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def prefill(self, tokens: int) -> float:
        ids = torch.tensor([prompt(tokens)])
        return timed(lambda: self.model(input_ids=ids, logits_to_keep=1))

    @torch.inference_mode()
    def decode(self, batch: int, steps: int) -> float:
        rows = torch.tensor([prompt(PROMPT_TOKENS, row) for row in range(batch)])
        out = self.model(input_ids=rows, use_cache=True, logits_to_keep=1)

        def loop() -> None:
            nonlocal out
            for _ in range(steps):
                following = out.logits[:, -1:].argmax(-1)
                out = self.model(input_ids=following, past_key_values=out.past_key_values, use_cache=True)

        return timed(loop)


serve(Transformers)
