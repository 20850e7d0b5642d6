"""Decoders on this machine's CPU: modelpress beside other engines, with the same weights and threads.

    benchmarks/peers.sh .venv-peers              # once: the other engines, in an environment of their own
    python benchmarks/decode.py --prepare        # once: convert both models for every engine, measure nothing
    python benchmarks/decode.py --write docs/decode.md    # the tables, each under its heading there
    python benchmarks/decode.py --quick          # the 135M model, fewer steps

Every engine is a process that stands by while another is timed; rounds visit them in turn and the medians
are printed, so that a noisy neighbour disturbs all alike. An engine that cannot run leaves its reason in the
table. float32 is left out for its time and memory; `--all` adds it. llama.cpp is built without its AMX
kernels: release 0.3.36 of its Python package crashes in them (`peers.sh`). 4-bit weights are in groups of 64,
ours and the others' alike, but for llama.cpp's, which are of 32. The output head has 8 bits in our int4, as
in llama.cpp's and OpenVINO's, and 4 where it is called head4, as in onnxruntime-genai's.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from compress.machine import machine

HERE = Path(__file__).resolve().parent
THREADS = 2
ENGINES = {
    "modelpress": ("int8", "int4", "int4-head4-kv8", "auto", "auto-head4-kv8"),
    "llama_cpp": ("q4_0", "q8_0"),
    "openvino_genai": ("int8", "int4"),
    "onnxruntime_genai": ("int4",),
    "transformers": ("bf16",),
}
SLOWER = {
    "modelpress": ("fp32",),
    "llama_cpp": (),
    "openvino_genai": (),
    "onnxruntime_genai": ("fp32",),
    "transformers": ("fp32",),
}
# (kind, size, the least ratio to the best peer that is asked for)
WORKLOADS = (
    ("decode", 1, 1.1),
    ("decode", 8, 1.5),
    ("decode", 32, 1.1),
    ("prefill", 128, 1.0),
    ("prefill", 1024, 1.0),
)
# What only an engine with a scheduler has: workload, its sizes, the row's words, its bar (at most, or else).
OWN = (
    ("loop_share", (8, 64), "loop / graph at 8", "at least 0.90"),
    ("beside", (16, 1024), "first token of 16 beside a prefill of 1,024 / idle", "3"),
    ("shared_prefix", (512,), "first token after a shared prefix of 512 / before", "0.15"),
    ("overhead_mb", (), "resident beyond weights and KV, MB", "150"),
)
MODELS: dict[str, dict[str, Any]] = {
    "llama-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "qwen2-0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
}
COMMON = {"max_position_embeddings": 2048, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0}


@dataclass(slots=True)
class Engine:
    """One engine at one precision: its process while it lives, and tokens/s by workload and round."""

    name: str
    precision: str
    log: Path = Path()
    process: subprocess.Popen[str] | None = None
    reason: str = ""
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    own: dict[str, list[float]] = field(default_factory=dict)

    def start(self, folder: Path, peers: Path) -> None:
        """Start it and wait until it is ready: at first, it converts the model. `peers` is their Python."""
        script = HERE / "peers" / f"{self.name}_engine.py"
        self.log = folder / f"{self.name}-{self.precision}.log"
        python = sys.executable if self.name == "modelpress" else str(peers)
        command = [python, str(script), str(folder), self.precision, str(THREADS)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self._fail()

    def run(self, kind: str, size: int, steps: int) -> None:
        """One timed round of a workload."""
        decodes = kind == "decode"
        seconds = self.ask(kind, *([size, steps] if decodes else [size]))
        if seconds is not None:
            self.rates.setdefault((kind, size), []).append((size * steps if decodes else size) / seconds)

    def ask(self, kind: str, *numbers: int) -> float | None:
        """What the engine answers to a workload; None where it cannot any more."""
        if self.process is None:
            return None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([kind, *numbers]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self._fail()
            return None
        return float(json.loads(answer))

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()

    def rate(self, kind: str, size: int) -> float | None:
        """Median tokens per second."""
        found = self.rates.get((kind, size))
        return statistics.median(found) if found else None

    def _fail(self) -> None:
        assert self.process is not None
        self.process.wait()
        lines = self.log.read_text().strip().splitlines()
        self.reason, self.process = (lines[-1][:90] if lines else "ended without a word"), None


def main() -> None:
    """Make the models, run the rounds, print one table a model; stopped early, print what there is."""
    chosen = _options()
    console = Console(width=160, record=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped early"))
    for name in chosen.models:
        folder = chosen.folder / name
        make_model(MODELS[name], folder)
        wanted = {e: (*ENGINES[e], *(SLOWER[e] if chosen.all else ())) for e in chosen.engines}
        engines = [Engine(name, precision) for name in wanted for precision in wanted[name]]
        if chosen.prepare:
            prepare(engines, folder, chosen.python)
            continue
        done = 0
        try:
            for engine in engines:
                engine.start(folder, chosen.python)
            for _ in range(chosen.rounds):
                measure(engines, chosen.steps)
                done += 1
        finally:
            console.print(machine())
            console.print(f"{done} of {chosen.rounds} rounds of {chosen.steps} steps, {THREADS} threads")
            console.print(table(name, engines))
            report = console.export_text()
            if chosen.write:
                write(chosen.write, name, report)
            for engine in engines:
                engine.stop()


def prepare(engines: list[Engine], folder: Path, peers: Path) -> None:
    """Convert the model for each engine, one at a time, and say which one runs a workload."""
    for engine in engines:
        engine.start(folder, peers)
        seconds = engine.ask("decode", 2, 2)
        engine.stop()
        outcome = engine.reason or f"runs ({seconds:.2f} s)"
        print(folder.name, engine.name, engine.precision, outcome, flush=True)


def measure(engines: list[Engine], steps: int) -> None:
    """One round: every workload on every engine."""
    for kind, size, _ in WORKLOADS:
        for engine in engines:
            engine.run(kind, size, steps)
    for engine in engines:
        if engine.name == "modelpress":
            for kind, numbers, *_ in OWN:
                if (answer := engine.ask(kind, *numbers)) is not None:
                    engine.own.setdefault(kind, []).append(answer)


def table(title: str, engines: list[Engine]) -> Table:
    """Tokens/s of every engine; below, ours over the best peer, and what only ours is asked for."""
    made = Table(title=f"{title}, tokens/s", box=None, header_style="bold", title_justify="left")
    for heading in ("", *(f"{kind} {size}" for kind, size, _ in WORKLOADS), ""):
        made.add_column(heading, justify="right" if heading else "left")
    for engine in engines:
        rates = (engine.rate(kind, size) for kind, size, _ in WORKLOADS)
        cells = ("-" if rate is None else f"{rate:,.0f}" for rate in rates)
        made.add_row(f"{engine.name} {engine.precision}", *cells, engine.reason)
    made.add_row("best of modelpress / best peer", *(_ratio(engines, *workload) for workload in WORKLOADS))
    for engine in engines:
        for kind, _, words, bar in OWN:
            if kind in engine.own:
                made.add_row(
                    f"{words}, {engine.precision}", f"{statistics.median(engine.own[kind]):.2f} (bar {bar})"
                )
    return made


def write(page: Path, title: str, report: str) -> None:
    """Put a report under its heading in a Markdown page, in place of the former one."""
    lines = "".join(f"    {line.rstrip()}\n" for line in report.splitlines())
    section = f"## {title}\n\n{lines}\n"
    before = page.read_text() if page.is_file() else "# Decoders beside other engines\n"
    text, count = re.subn(rf"^## {re.escape(title)}\n(?:(?!## ).*\n)*", lambda _: section, before, flags=re.M)
    page.write_text(text if count else f"{text}\n{section}")


def make_model(settings: dict[str, Any], folder: Path) -> None:
    """A model of random weights with a tokenizer of its vocabulary's size, as a Hugging Face folder."""
    if (folder / "tokenizer.json").is_file():
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    kind, rest = settings["model_type"], {k: v for k, v in settings.items() if k != "model_type"}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **rest, **COMMON)).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(settings["vocab_size"]), eos_token="<0>")
    tokenizer.save_pretrained(folder)


def _tokenizer(size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*(f"<{index}>" for index in range(size - len(alphabet))), *alphabet]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _ratio(engines: list[Engine], kind: str, size: int, bar: float) -> str:
    ours = [rate for e in engines if e.name == "modelpress" and (rate := e.rate(kind, size))]
    peers = [rate for e in engines if e.name != "modelpress" and (rate := e.rate(kind, size))]
    return f"{max(ours) / max(peers):.2f}x (bar {bar})" if ours and peers else "-"


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="the smaller model, two short rounds")
    options.add_argument("--prepare", action="store_true", help="convert what is missing, measure nothing")
    options.add_argument("--all", action="store_true", help="also float32")
    options.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    options.add_argument(
        "--python", type=Path, default=Path(".venv-peers/bin/python"), help="the peers' interpreter"
    )
    options.add_argument(
        "--folder", type=Path, default=Path("out/decode"), help="where models are made and kept"
    )
    options.add_argument("--write", type=Path, metavar="PAGE", help="a Markdown page to put the tables into")
    options.add_argument("--rounds", type=int, help="default: 3, or 2 with --quick")
    options.add_argument("--steps", type=int, help="tokens a sequence; default: 64, or 16 with --quick")
    chosen = options.parse_args()
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 3)
    chosen.steps = chosen.steps or (16 if chosen.quick else 64)
    chosen.models = chosen.models[:1] if chosen.quick else chosen.models
    return chosen


if __name__ == "__main__":
    main()
