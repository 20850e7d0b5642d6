"""Whether another load generator measures the same: guidellm and ours in turn, on one deployment.

    python -m venv /tmp/guidellm && /tmp/guidellm/bin/pip install guidellm
    modelpress serve gpt-mini-int4 --port 3000 &
    python benchmarks/loadtests_agreement.py --url http://127.0.0.1:3000 --model gpt-mini-int4 \
        --tokenizer BUNDLE/tokenizer.json --guidellm /tmp/guidellm/bin/guidellm

Both send the same prompts (lines of the standard library's source, all different, so that no prefix cache
helps) at the same constant rate, ask for as many tokens, and read streams. guidellm counts a time to first
token from the real send, ours from the planned one, which on a machine that keeps up is the same. Ours
measures what follows the warm-up; guidellm's first seconds are in its medians, and weigh little there.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer

from loadtests.result import Result
from loadtests.terminal import figure

PROMPTS, PROMPT_TOKENS, OUTPUT_TOKENS = 1000, 180, 48
WARMUP_S = 3
GREEDY = {"temperature": 0, "ignore_eos": True}


def write_prompts(path: Path, tokenizer: Tokenizer) -> None:
    """One prompt to a line."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    words = " ".join(file.read_text(encoding="utf-8") for file in files).split()
    draw, lines = random.Random(0), []
    for _ in range(PROMPTS):
        at = draw.randrange(len(words) - PROMPT_TOKENS * 2)
        ids = tokenizer.encode(" ".join(words[at : at + PROMPT_TOKENS * 2])).ids[:PROMPT_TOKENS]
        lines.append(" ".join(tokenizer.decode(ids).split()))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def guidellm(program: Path, folder: Path, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Requests a second, tokens a second and the median time to first token in milliseconds."""
    backend = {"kind": "openai_http", "target": arguments.url, "model": arguments.model}
    # Its own `stream_options` ask for usage in every chunk, which our generator does not.
    body = GREEDY | {"stream_options": None}
    backend |= {"request_format": "/v1/completions", "max_tokens": OUTPUT_TOKENS, "extras": {"body": body}}
    backend |= {"validate_backend": False}  # which asks for /health
    spec = {
        "backend": backend,
        "tokenizer": {"kind": "huggingface_auto", "model": str(folder)},
        "profile": {"kind": "constant", "rate": arguments.rate},
        "data": [{"kind": "text_file", "path": str(folder / "prompts.txt")}],
        "constraints": [{"kind": "max_duration", "seconds": arguments.seconds}],
        "outputs": [{"kind": "json", "path": str(folder / "guidellm.json")}],
    }
    config = folder / "guidellm.yaml"
    config.write_text(yaml.safe_dump({"spec": spec}), encoding="utf-8")
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [str(program), "run", "-c", str(config), "--disable-progress"]
    subprocess.run(command, env=offline, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = json.loads((folder / "guidellm.json").read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]
    return (
        metrics["requests_per_second"]["successful"]["mean"],
        metrics["output_tokens_per_second"]["successful"]["mean"],
        metrics["time_to_first_token_ms"]["successful"]["median"],
    )


def ours(folder: Path, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """The same of `modelpress loadtest`."""
    entry: dict[str, Any] = {"dialect": "openai-completions", "model": arguments.model}
    entry |= {"prompts_file": "prompts.txt", "max_tokens": OUTPUT_TOKENS, "extra_body": GREEDY}
    scenario = {
        "arrivals": {"kind": "constant", "rate": arguments.rate},
        "duration": arguments.seconds,
        "warmup": WARMUP_S,
        "timeout": 30,
        "mix": [entry],
    }
    path, out = folder / "scenario.yaml", folder / "ours.json"
    path.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    command = [sys.executable, "-m", "loadtests", path, "--url", arguments.url, "--out", out, "--quiet"]
    subprocess.run(command, check=True)
    summary = Result.model_validate_json(out.read_bytes()).summary
    assert summary.ttft_ms
    return summary.throughput_rps, summary.tokens_per_s or 0.0, float(figure(summary.ttft_ms, "p50"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--guidellm", type=Path, required=True, help="Its program.")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path("out/agreement"))
    arguments = parser.parse_args()
    folder = arguments.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(arguments.tokenizer.read_bytes())
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")
    write_prompts(folder / "prompts.txt", Tokenizer.from_file(str(arguments.tokenizer)))
    print("            requests/s  tokens/s  TTFT p50 ms")
    for name, (requests, tokens, ttft) in {
        "guidellm": guidellm(arguments.guidellm, folder, arguments),
        "modelpress": ours(folder, arguments),
    }.items():
        print(f"{name:10}{requests:12.2f}{tokens:10.1f}{ttft:13.2f}")


if __name__ == "__main__":
    main()
