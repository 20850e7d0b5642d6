"""OpenVINO GenAI's continuous batching over what optimum-intel converts. Precisions: int8, int4."""

from pathlib import Path

import openvino as ov
import openvino_genai as genai
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from protocol import GROUP_SIZE, PROMPT_TOKENS, prompt, serve, timed
from transformers import AutoTokenizer


class OpenVINO:
    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        built = folder / f"openvino-{precision}"
        if not (built / "openvino_tokenizer.xml").is_file():
            _convert(folder, built, precision)
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs, scheduler.max_num_batched_tokens, scheduler.cache_size = 64, 4096, 1
        scheduler.enable_prefix_caching = False
        self.pipe = genai.ContinuousBatchingPipeline(
            str(built), scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads}
        )
        self.requests = 0

    def _add(self, rows: list[list[int]], new_tokens: int) -> list:
        config = genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)
        handles = []
        for row in rows:
            self.requests += 1
            handles.append(self.pipe.add_request(self.requests, ov.Tensor([row]), config))
        return handles

    def _finish(self) -> None:
        while self.pipe.has_non_finished_requests():
            self.pipe.step()

    def prefill(self, tokens: int) -> float:
        handles = self._add([prompt(tokens)], 1)
        seconds = timed(self._finish)
        del handles
        return seconds

    def decode(self, batch: int, steps: int) -> float:
        handles = self._add([prompt(PROMPT_TOKENS, row) for row in range(batch)], steps + 16)
        for _ in range(2):
            self.pipe.step()  # all prompts fit the first step
        seconds = timed(lambda: [self.pipe.step() for _ in range(steps)])
        for handle in handles:
            handle.stop()
        self._finish()
        return seconds


def _convert(folder: Path, built: Path, precision: str) -> None:
    bits = {"int8": 8, "int4": 4}[precision]
    group = {} if bits == 8 else {"group_size": GROUP_SIZE, "ratio": 1.0}
    config = OVWeightQuantizationConfig(bits=bits, sym=bits == 4, **group)
    OVModelForCausalLM.from_pretrained(folder, export=True, quantization_config=config).save_pretrained(built)
    from openvino_tokenizers import convert_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encode, decode = convert_tokenizer(tokenizer, with_detokenizer=True)
    ov.save_model(decode, built / "openvino_detokenizer.xml")
    ov.save_model(encode, built / "openvino_tokenizer.xml")


serve(OpenVINO)
