"""onnxruntime-genai, with the graph of its own model builder. Precisions: fp32, int4."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from protocol import GROUP_SIZE, PROMPT_TOKENS, prompt, serve, timed


class Genai:
    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        built = folder / (f"genai-{precision}-g{GROUP_SIZE}" if precision == "int4" else f"genai-{precision}")
        if not (built / "genai_config.json").is_file():
            _build(folder, built, precision)
        settings = json.loads((built / "genai_config.json").read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
        (built / "genai_config.json").write_text(json.dumps(settings))
        self.model = og.Model(str(built))

    def _start(self, rows: list[list[int]], more: int) -> "og.Generator":
        params = og.GeneratorParams(self.model)
        params.set_search_options(
            batch_size=len(rows), max_length=len(rows[0]) + more + 2, min_length=len(rows[0]) + more + 1
        )
        return og.Generator(self.model, params)

    def prefill(self, tokens: int) -> float:
        generator = self._start([prompt(tokens)], 1)
        return timed(lambda: generator.append_tokens(np.array([prompt(tokens)], np.int32)))

    def decode(self, batch: int, steps: int) -> float:
        rows = [prompt(PROMPT_TOKENS, row) for row in range(batch)]
        generator = self._start(rows, steps)
        generator.append_tokens(np.array(rows, np.int32))
        generator.generate_next_token()  # the first token costs no step of the model
        return timed(lambda: [generator.generate_next_token() for _ in range(steps)])


def _build(folder: Path, built: Path, precision: str) -> None:
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", folder, "-o", built]
    int4 = ["--extra_options", "int4_accuracy_level=4", f"block_size={GROUP_SIZE}"]
    options = int4 if precision == "int4" else []
    subprocess.run([*builder, "-p", precision, "-e", "cpu", "-c", folder / "cache", *options], check=True)


serve(Genai)
