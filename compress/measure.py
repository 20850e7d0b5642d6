"""The evidence: the shipped graph beside the baseline, on the same examples and the same machine.

Everything runs on `runtime`, the code that serves. Quality is paired example by example;
latency comes from interleaved rounds, so that a noisy neighbour disturbs both alike.
It judges nothing: `gate` does.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compress.batch_invariance import batch_invariance
from compress.bootstrap import Rows, interval
from compress.errors import StepError
from compress.examples import EVALUATION_BATCH, choose
from compress.export.source import example_inputs
from compress.machine import machine
from models.datasets import Dataset
from models.datasets.encoding import source_tokens
from models.errors import DataError
from models.evaluation import Evaluation, beside, evaluate, metric_for
from models.generation import ANSWER_TOKENS
from models.sources.source import SourceModel
from runtime.bundle import Bundle
from runtime.manifest import DecoderGraph, Evidence, GenerationProcessing, Latency, Quality, Sample
from runtime.model import TextModel, load_model
from runtime.processing import Array
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler
from runtime.tensor import TensorModel

Model = TensorModel | TextModel
Call = Callable[[], object]

SCORES = "scores.npy"
ROUNDS = 15
# One timed round runs for at least this long, so that the clock's grain does not show.
ROUND_SECONDS = 0.02
BATCHES = (1, 32)
PREFILL_TOKENS = 128
DECODE_BATCHES = (1, 8)
SAMPLES = 4
SAMPLE_PROMPT, SAMPLE_TOKENS = 48, 40


def judge(bundle: Bundle, dataset: Dataset | None, examples: int, seed: int, folder: Path) -> dict[str, Any]:
    """Score the bundle on (at most) `examples` held-out examples, into `folder`; the metric as figures.

    No figures where there is nothing to judge by: no data, or none with targets.
    """
    metric = metric_for(dataset) if dataset else None
    if dataset is None or metric is None or dataset.validation.targets is None:
        return {}
    result = score(bundle, dataset, "validation", examples, seed)
    np.save(folder / SCORES, result.scores)
    return {"metric": metric, "higher_is_better": result.higher_is_better, "value": result.value()}


def score(
    bundle: Bundle, dataset: Dataset, part: Literal["train", "validation"], examples: int, seed: int
) -> Evaluation:
    """The metric of the bundle on (at most) `examples` of a part of the data.

    Raises DataError where there is nothing to judge by.
    """
    metric = metric_for(dataset)
    if metric is None:
        raise DataError(
            f"{dataset.name} has no labels, and nothing can be judged by it; give data with labels"
        )
    split = choose(dataset.train if part == "train" else dataset.validation, examples, seed)
    model = load_model(bundle)
    results = [
        evaluate(predictor(model, file), split, metric, EVALUATION_BATCH, bundle.manifest.processing)
        for file in _judged_alone(bundle)
    ]
    # Of a decoder's several graphs, the one that answers worst is what the bundle is judged by.
    return min(results, key=lambda each: each.value() if each.higher_is_better else -each.value())


def measure(
    variant: Bundle, baseline: Bundle, source: SourceModel, judged: Path, judged_baseline: Path
) -> Evidence:
    """All the evidence for `variant`; the two folders are where `judge` left both bundles' scores."""
    metric = metric_for(source.dataset) if source.dataset else None
    qualities: tuple[Quality, ...] = ()
    if metric and (judged / SCORES).is_file():
        qualities = qualities_of(*(_evaluation(metric, folder) for folder in (judged, judged_baseline)))
    ours, theirs = load_model(variant), load_model(baseline)
    return Evidence(
        size_bytes=_graph_bytes(variant),
        baseline_size_bytes=_graph_bytes(baseline),
        quality=next(iter(qualities), None),
        also=qualities[1:],
        latency=time_both(ours, theirs, example_inputs(source)),
        parity=_parity(baseline),
        samples=sample(ours, theirs, source.dataset),
        batch_invariance=batch_invariance(ours, example_inputs(source)),
        machine=machine(),
    )


def qualities_of(variant: Evaluation, baseline: Evaluation) -> tuple[Quality, ...]:
    """Both evaluations compared by their own metric, then by those that texts are judged by beside it."""
    pairs = [(variant, baseline)]
    for metric in beside(variant.metric):
        ours, theirs = variant.judged_by(metric), baseline.judged_by(metric)
        assert ours
        assert theirs
        pairs.append((ours, theirs))
    return tuple(compare(*pair) for pair in pairs)


def compare(variant: Evaluation, baseline: Evaluation) -> Quality:
    """Both evaluations, of the same examples, as one record with paired intervals.

    Raises StepError for a metric that is not finite: nothing compares with it, and no manifest holds it; and
    where there is no baseline (`drop_between`).
    """
    examples = len(variant.scores)
    for which, each in (("the original", baseline), ("the result", variant)):
        if not math.isfinite(value := each.value()):
            raise StepError(
                f"the {each.metric} of {which} is {value} over {examples} examples: it overflows, or answers "
                "all of them alike; leave out the step that did this, or give other data"
            )

    def drop(rows: Rows) -> float:
        return _drop(variant, baseline, rows)

    return Quality(
        metric=variant.metric,
        higher_is_better=variant.higher_is_better,
        value=variant.value(),
        interval=interval(variant.value, examples),
        baseline=baseline.value(),
        drop=drop_between(variant, baseline),
        drop_interval=interval(drop, examples),
        examples=examples,
    )


def drop_between(variant: Evaluation, baseline: Evaluation) -> float:
    """How much worse the variant is: absolute for a score, relative where lower is better.

    Raises StepError where lower is better and the original is at 0, of which nothing is a part or a multiple.
    """
    drop = _drop(variant, baseline)
    if math.isnan(drop) and baseline.value() == 0:
        raise StepError(
            f"no baseline: the {baseline.metric} of the original is 0 over {len(baseline.scores)} examples, "
            f"and the {variant.value():.4g} of the result is no multiple of that; give other data"
        )
    return drop


def _drop(variant: Evaluation, baseline: Evaluation, rows: Rows | None = None) -> float:
    """The same over some of the rows; not a number without a baseline, but for two that are both at 0."""
    ours, theirs = variant.value(rows), baseline.value(rows)
    if variant.higher_is_better:
        return theirs - ours
    if theirs == 0:
        return 0.0 if ours == 0 else math.nan
    return ours / theirs - 1


def time_both(variant: Model, baseline: Model, inputs: Mapping[str, Array]) -> tuple[Latency, ...]:
    """In-process latency of both, workload by workload, on `inputs` by name."""
    ours, theirs = _workloads(variant, inputs), _workloads(baseline, inputs)
    return tuple(_time(name, ours[name], theirs[name]) for name in ours)


def sample(ours: Model, theirs: Model, dataset: Dataset | None) -> tuple[Sample, ...]:
    """What both answer to the beginnings of held-out texts; nothing for models that do not generate."""
    if dataset is None or not isinstance(ours, TextModel) or not isinstance(theirs, TextModel):
        return ()
    windows = source_tokens(choose(dataset.validation, SAMPLES, seed=1).inputs)
    prompts = [window[: min(SAMPLE_PROMPT, ours.graph.context_length // 2)] for window in windows]
    return tuple(
        Sample(
            input=ours.tokenizer.decode(tokens),
            output=_complete(ours, tokens),
            baseline=_complete(theirs, tokens),
        )
        for tokens in prompts
    )


def predictor(model: Model, file: str | None = None) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """A loaded bundle as `models.evaluation` wants it: named arrays in, named arrays out.

    `file` names one of a decoder's several graphs. An encoder-decoder gives its answers, "text" [batch].
    """
    if isinstance(model, TensorModel):
        return model.run
    if model.graph.encoder:
        return partial(_answers, model, model.scheduler(EVALUATION_BATCH))
    adapter = own_adapter(model)
    return lambda inputs: {"logits": model.score(inputs["input_ids"], file, adapter)}


def _answers(model: TextModel, scheduler: Scheduler, inputs: dict[str, Array]) -> dict[str, Array]:
    """Greedy answers, all at once, no longer than those of `models.generation`."""
    room = model.graph.context_length - len(_started(model))
    params = SamplingParams(max_tokens=min(ANSWER_TOKENS, room), temperature=0)
    sources = source_tokens(inputs)
    for row, source in enumerate(sources):
        scheduler.add(Request(str(row), source, params))
    tokens: list[list[int]] = [[] for _ in sources]
    while scheduler.has_work:
        for event in scheduler.step():
            if event.token_id is not None:
                tokens[int(event.request_id)].append(event.token_id)
    return {"text": np.array([model.tokenizer.decode(row) for row in tokens], object)}


def _started(model: TextModel) -> tuple[int, ...]:
    processing = model.manifest.processing
    return processing.start_ids if isinstance(processing, GenerationProcessing) else ()


def _judged_alone(bundle: Bundle) -> tuple[str, ...]:
    """The graphs that are judged one by one; an encoder answers nothing without its decoder."""
    graph = bundle.manifest.graph
    return (graph.file,) if isinstance(graph, DecoderGraph) and graph.encoder else graph.files


def own_adapter(model: TextModel) -> str | None:
    """The adapter that came with the bundle: it is judged and timed with it, as its recipe made it."""
    return next(iter(model.adapters.names), None)


def _evaluation(metric: str, folder: Path) -> Evaluation:
    return Evaluation(metric, np.load(folder / SCORES))


def _graph_bytes(bundle: Bundle) -> int:
    manifest = bundle.manifest
    return sum(manifest.files[file].size for file in manifest.graph.files)


def _parity(bundle: Bundle) -> dict[str, float]:
    exports = (step for step in bundle.manifest.lineage.steps if step.method == "export")
    return dict(next(exports).figures.get("parity", {}))


def _workloads(model: Model, inputs: Mapping[str, Array]) -> dict[str, Call]:
    if isinstance(model, TextModel):
        return _text_workloads(model, inputs)
    return {f"batch {size}": _batch_call(model, inputs, size) for size in BATCHES}


def _batch_call(model: TensorModel, inputs: Mapping[str, Array], size: int) -> Call:
    batch = {name: np.resize(value, (size, *value.shape[1:])) for name, value in inputs.items()}
    return lambda: model.run(batch)


def _text_workloads(model: TextModel, inputs: Mapping[str, Array]) -> dict[str, Call]:
    # Prefill and the decoded steps must fit the context together.
    length = min(PREFILL_TOKENS, model.graph.context_length // 2)
    tokens = np.resize(np.asarray(inputs["input_ids"]).ravel(), length)
    return {
        **{f"decode {size}": _decode_call(model, tokens, size) for size in DECODE_BATCHES},
        f"prefill {length}": _prefill_call(model, tokens),
    }


def _decode_call(model: TextModel, tokens: Array, size: int) -> Call:
    decoder, adapter = model.scheduler(size).decoder, model.adapters.find(own_adapter(model))
    for slot in range(size):
        if decoder.source:
            decoder.encode(slot, tokens)
        decoder.prefill(slot, tokens, adapter)

    def step() -> None:
        decoder.lengths[:] = len(tokens)  # the same place each time: every round does the same work
        decoder.decode(np.full(size, tokens[-1]))

    return step


def _prefill_call(model: TextModel, tokens: Array) -> Call:
    decoder, adapter = model.scheduler(1).decoder, model.adapters.find(own_adapter(model))

    def prefill() -> None:
        decoder.release(0)
        if decoder.source:
            decoder.encode(0, tokens)
            decoder.prefill(0, tokens[:1], adapter)
        else:
            decoder.prefill(0, tokens, adapter)

    return prefill


def _time(name: str, ours: Call, theirs: Call) -> Latency:
    repeats = {call: _repeats(call) for call in (ours, theirs)}
    rounds = np.array([[_round(call, repeats[call]) for call in (ours, theirs)] for _ in range(ROUNDS)]) * 1e3
    medians = np.median(rounds, 0)

    def speedup(rows: Rows) -> float:
        return float(np.median(rounds[rows, 1]) / np.median(rounds[rows, 0]))

    return Latency(
        workload=name,
        median_ms=float(medians[0]),
        p90_ms=float(np.quantile(rounds[:, 0], 0.9)),
        baseline_median_ms=float(medians[1]),
        speedup=float(medians[1] / medians[0]),
        speedup_interval=interval(speedup, ROUNDS),
        runs=ROUNDS,
    )


def _repeats(call: Call) -> int:
    call()  # the first run allocates
    return max(1, int(ROUND_SECONDS / max(_round(call, 1), 1e-6)))


def _round(call: Call, repeats: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _complete(model: TextModel, tokens: list[int]) -> str:
    params = SamplingParams(max_tokens=SAMPLE_TOKENS, temperature=0)
    return "".join(model.generate(tokens, params, adapter=own_adapter(model)))
