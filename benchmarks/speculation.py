"""Speculative decoding of code that the model has not seen: what proposing gains, and that the text stays.

    python benchmarks/speculation.py
    python benchmarks/speculation.py --targets fp32 --prompts 4      # a first look

The zoo's `gpt-mini`, as a recipe makes it, continues the beginnings of held-out files greedily, alone. Each
prompt is answered plainly and with each proposer in turn, before the next one, each by a scheduler that
lasts, as a server's does; tokens/s are over all prompts but the first, which warms up.
The proposers are the text itself, a table of n-grams of the training files, and a distilled draft
(`recipes/code-draft.yaml`) in each precision; `lookup, then` asks the second where the text gives no idea.
The bar: 1.3 times the plain rate, with the same text.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from compress.machine import machine
from compress.pipeline import run
from compress.recipe import load_recipe, parse_recipe
from models.datasets import load_dataset
from runtime.model import TextModel
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler
from runtime.speculation import FirstOf, NGramDraft, PromptLookup, Proposer

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS: dict[str, list[dict[str, object]]] = {
    "fp32": [],
    "int8": [{"method": "quantize", "scheme": "int8-dynamic"}],
    "int4": [{"method": "quantize", "scheme": "int4"}],
}
PROMPT, ANSWER = 128, 120
BAR = 1.3


@dataclass(slots=True)
class Way:
    """One way of decoding: what it proposes with, and what it did."""

    name: str
    scheduler: Scheduler
    seconds: float = 0.0
    tokens: int = 0
    ratios: list[float] = field(default_factory=list)
    same: bool = True


def main() -> None:
    """Print one row for each target and proposer."""
    chosen = _options()
    prompts = _prompts(chosen.prompts + 1)
    drafts = {name: _model(_draft_steps(name), chosen.draft_threads) for name in chosen.drafts}
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("target", "proposer", "tokens/s", "of plain", "median prompt", "accepted", "same text"):
        made.add_column(heading, justify="left" if heading in ("target", "proposer") else "right")
    for name in chosen.targets:
        ways = _measure(_model(PRECISIONS[name], chosen.threads), drafts, prompts)
        plain = ways[0].tokens / ways[0].seconds
        for way in ways:
            rate = way.tokens / way.seconds
            found = way.scheduler.statistics
            share = f"{found.accepted_tokens / found.draft_tokens:.0%}" if found.draft_tokens else "-"
            median = f"{statistics.median(way.ratios):.2f}x"
            same = "yes" if way.same else "no"
            made.add_row(name, way.name, f"{rate:,.0f}", f"{rate / plain:.2f}x", median, share, same)
    console = Console(width=120)
    console.print(machine())
    console.print(
        f"{chosen.prompts} prompts of {PROMPT} tokens, {ANSWER} more each, {chosen.threads} threads, "
        f"drafts {chosen.draft_threads}; bar {BAR}x"
    )
    console.print(made)


def _measure(target: TextModel, drafts: dict[str, TextModel], prompts: list[list[int]]) -> list[Way]:
    n_grams = _n_grams(target.graph.vocab_size)
    second: dict[str, Callable[[], Proposer]] = {"n-grams": lambda: n_grams}
    second |= {f"draft {name}": partial(draft.draft_for, target) for name, draft in drafts.items()}
    proposers: dict[str, Proposer | None] = {"none": None, "prompt lookup": PromptLookup()}
    proposers |= {name: make() for name, make in second.items()}
    proposers |= {f"lookup, then {name}": FirstOf(PromptLookup(), make()) for name, make in second.items()}
    ways = [Way(name, target.scheduler(slots=1, proposer=each)) for name, each in proposers.items()]
    for number, tokens in enumerate(prompts):
        answers = [_answer(way.scheduler, tokens) for way in ways]
        for way, (answer, seconds) in zip(ways, answers, strict=True):
            way.same = way.same and answer == answers[0][0]
            if number:
                way.seconds += seconds
                way.tokens += len(answer) - 1
                way.ratios.append(answers[0][1] / seconds)
    return ways


def _answer(scheduler: Scheduler, tokens: list[int]) -> tuple[list[int], float]:
    """The greedy answer, and its seconds from the first token to the last."""
    scheduler.add(Request("", tokens, SamplingParams(max_tokens=ANSWER, temperature=0, ignore_eos=True)))
    events = []
    while not events:
        events = scheduler.step()
    start = time.perf_counter()
    while scheduler.has_work:
        events += scheduler.step()
    seconds = time.perf_counter() - start
    return [event.token_id for event in events if event.token_id is not None], seconds


def _n_grams(vocab_size: int) -> NGramDraft:
    """Of the files that the model was trained on."""
    return NGramDraft(load_dataset("stdlib").train.inputs["input_ids"].ravel(), vocab_size)


def _prompts(count: int) -> list[list[int]]:
    """Windows spread over the held-out files."""
    windows = load_dataset("stdlib").validation.inputs["input_ids"]
    return [row[:PROMPT].tolist() for row in windows[:: max(1, len(windows) // count)][:count]]


def _draft_steps(precision: str) -> list[dict[str, object]]:
    """The recipe's distillation, then this precision instead of its own."""
    recipe = load_recipe(ROOT / "recipes" / "code-draft.yaml")
    distill, *_ = (step.model_dump(mode="json") for step in recipe.steps)
    return [distill, *PRECISIONS[precision]]


def _model(steps: list[dict[str, object]], threads: int) -> TextModel:
    # Every row is shown, whatever it costs: this is about speed.
    recipe = {"model": "zoo:gpt-mini", "steps": steps, "gate": {"max_drop": None}}
    return TextModel(run(parse_recipe(json.dumps(recipe))).bundle, threads=threads)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--targets", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options.add_argument("--drafts", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    options.add_argument("--prompts", type=int, default=16)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--draft-threads", type=int, default=1, help="too small to share its work")
    return options.parse_args()


if __name__ == "__main__":
    main()
