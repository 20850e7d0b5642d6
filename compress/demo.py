"""`modelpress demo`: the whole way once, on real input, as a user would walk it.

Compression runs in this process; the server and the load tests are the same commands that a user types, in
processes of their own, and are always stopped. Nothing is simulated: the table holds what was measured.
"""

import io
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from compress import table
from compress.errors import DemoError
from compress.pipeline import run
from compress.progress import Narrator
from compress.publish import check_folder, publish
from compress.recipe import parse_recipe
from compress.report import write_report
from models.datasets import load_dataset
from runtime.bundle import Bundle
from runtime.manifest import Manifest

# fp32 is the baseline; each other scheme is one way of making the model smaller.
SCHEMES = {
    "zoo:lenet5": ("fp32", "fp16", "int8-dynamic", "int8-static"),
    "zoo:gpt-mini": ("fp32", "fp16", "int8-dynamic", "int4"),
}
# Int4 may cost 3% of perplexity; everything else is held to 1%.
MAX_DROP = {"int4": 0.03}
# Held-out images, or windows of 256 tokens: enough for intervals of a point of accuracy or of perplexity.
EXAMPLES = {"zoo:lenet5": 360, "zoo:gpt-mini": 128}
# Task -> scenario, requests a second, seconds: short, so that a p99 is "n/a" for want of samples.
SCENARIOS = {"image-classification": ("digits", 50.0, 4.0), "text-generation": ("complete", 5.0, 5.0)}
PROMPT = "def read_lines(path):\n    "
QUESTIONS = 5
STOP_SECONDS = 10.0
TABLE_WIDTH = 92


def run_demo(out: Path, as_json: bool) -> None:
    """Train, compress, publish, serve, ask, load-test, report. Raises DemoError where a part fails."""
    check_folder(out)
    start, console = time.perf_counter(), Console(stderr=as_json)
    console.width = max(console.width, TABLE_WIDTH)
    manifests = _compress_all()
    tags = [manifest.tag for manifest in manifests]
    with serving(tags) as url:
        _ask_digits(url, "lenet5-int8-static", console)
        _ask_code(url, "gpt-mini-int4", console)
        served = {manifest.tag: _load_test(url, manifest, out / "loadtests") for manifest in manifests}
    page = out / "report.html"
    write_report(manifests, page, out / "loadtests")
    console.print(table.bundle_tables(manifests, {tag: _served(result) for tag, result in served.items()}))
    console.print("\np50/p99: served, under load, from the planned send; n/a: too few samples")
    console.print(f"report: {page}   took {time.perf_counter() - start:.0f} s")
    if as_json:
        rows = [{**m.model_dump(mode="json"), "served": served[m.tag]["summary"]} for m in manifests]
        print(json.dumps(rows))


@contextmanager
def serving(tags: Sequence[str]) -> Iterator[str]:
    """`modelpress serve` over the published `tags` on a free port; its address. It is stopped at the end."""
    command = [sys.executable, "-m", "modelpress", "serve", *tags, "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise DemoError(f"the server did not start (exit code {server.wait()}); its own message is above")
        yield json.loads(line)["url"]
    finally:
        _stop(server)


def _stop(server: "subprocess.Popen[str]") -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout:
        server.stdout.close()


def _compress_all() -> list[Manifest]:
    bundles: list[Bundle] = []
    for model, schemes in SCHEMES.items():
        for scheme in schemes:
            result = run(parse_recipe(_recipe(model, scheme)), Narrator(f"{model} {scheme}"))
            if result.verdict.passed:
                bundles.append(publish(result.bundle)[1])
            else:
                Console(stderr=True).print(f"  refused: {'; '.join(result.verdict.failures)}")
    return [bundle.manifest for bundle in bundles]


def _recipe(model: str, scheme: str) -> str:
    steps = [] if scheme == "fp32" else [{"method": "quantize", "scheme": scheme}]
    gate = {"max_drop": MAX_DROP.get(scheme, 0.01), "examples": EXAMPLES[model]}
    return json.dumps({"model": model, "steps": steps, "gate": gate})


def _ask_digits(url: str, tag: str, console: Console) -> None:
    """Send held-out digits as PNG files, as a user would."""
    split = load_dataset("digits").validation
    assert split.raw is not None
    assert split.targets is not None
    answers = [
        _post(f"{url}/predict/{tag}", _png(image), "image/png")["predictions"][0]
        for image in split.raw[:QUESTIONS]
    ]
    told = (
        f"{answer['label']} ({answer['probability']:.0%}, truly {truth})"
        for answer, truth in zip(answers, split.targets, strict=False)
    )
    console.print(f"\n[bold]{tag}[/bold] reads held-out digits: {', '.join(told)}")


def _ask_code(url: str, tag: str, console: Console) -> None:
    """Complete code over the OpenAI dialect, streamed: each piece is shown as it comes."""
    body = {"model": tag, "prompt": PROMPT, "max_tokens": 48, "temperature": 0, "stream": True}
    console.print(f"[bold]{tag}[/bold] completes, streaming:")
    console.print(PROMPT, end="", style="dim", markup=False, highlight=False)
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        for line in response:
            if line.startswith(b"data: {"):
                text = json.loads(line.removeprefix(b"data: "))["choices"][0]["text"]
                console.print(text, end="", markup=False, highlight=False)
    console.print("\n")


def _load_test(url: str, manifest: Manifest, folder: Path) -> dict[str, Any]:
    scenario, rate, duration = SCENARIOS[manifest.task]
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f"{manifest.tag}.json"
    options = [
        "--model",
        manifest.tag,
        "--rate",
        str(rate),
        "--duration",
        str(duration),
        "--out",
        str(result),
    ]
    command = [sys.executable, "-m", "modelpress", "loadtest", scenario, "--url", url, *options, "--json"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if not result.is_file():
        raise DemoError(f"the load test of {manifest.tag} ended with code {done.returncode} and no result")
    loaded: dict[str, Any] = json.loads(result.read_text())
    return loaded


def _served(result: dict[str, Any]) -> str:
    percentiles = result["summary"]["latency_ms"]["percentiles"]
    return " / ".join(_percentile(percentiles[name]) for name in ("p50", "p99"))


def _percentile(figure: dict[str, Any]) -> str:
    """The value, or "n/a" where the load test had too few samples for it."""
    return "n/a" if figure["value"] is None else f"{figure['value']:.1f}"


def _post(url: str, body: bytes, content_type: str) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
