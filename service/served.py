"""A loaded model at work, of either kind, and how a bundle becomes one."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter

import numpy as np

from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.manifest import Manifest
from runtime.model import TextModel, load_model
from runtime.processing import MAX_PIXELS, Array
from runtime.scheduler import Scheduler
from runtime.tensor import TensorModel
from service import metrics
from service.batch import Layout
from service.batcher import Batcher
from service.cost import CostModel, measure
from service.engine import Engine
from service.errors import ModelFailed
from service.lanes import Lanes, Way
from service.pool import Pool
from service.proposers import proposing
from service.settings import Settings
from service.traffic import Traffic

logger = logging.getLogger("modelpress.service")

Served = Batcher | Engine

# The cost table's first cells are measured for this long at most: readiness must not wait for it.
WARM_UP_SECONDS = 0.15
# Beside an event loop that wants a core, single threads are better already where they are nearly as good.
AS_GOOD = 1.1
# A model of more bytes is in memory once, and all cores run each of its batches.
LARGEST_TWICE = 2**28
# A short sentence; longer ones are measured when they come.
WARM_UP_LENGTH = 16


def load(bundle: Bundle, settings: Settings) -> TensorModel | TextModel:
    """Load a bundle, and take note of what that took. Raises GraphError."""
    started = perf_counter()
    pixels = settings.max_pixels or MAX_PIXELS
    model = load_model(bundle, threads=settings.threads, max_pixels=pixels)
    tag = bundle.manifest.tag
    metrics.MODEL_LOAD_SECONDS.labels(tag).set(perf_counter() - started)
    metrics.MODEL_BYTES.labels(tag).set(sum(record.size for record in bundle.manifest.files.values()))
    return model


def serve(model: TensorModel | TextModel, pool: Pool, traffic: Traffic, settings: Settings) -> Served:
    """The model with its queue in front. Raises ModelFailed for a feed-forward model that does not run."""
    if isinstance(model, TensorModel):
        return Batcher(
            model,
            pool,
            traffic,
            queue_rows=settings.queue_rows,
            max_rows=settings.max_rows,
            lanes=open_lanes(model),
        )
    return Engine(
        model,
        slots=settings.slots,
        queue_size=settings.queue,
        queue_tokens=settings.queue_tokens,
        make_scheduler=scheduling(model, settings),
    )


def open_lanes(model: TensorModel) -> Lanes:
    """The ways in which a model can run, measured; it is opened a second time only where that pays.

    Raises ModelFailed for a model that cannot run at all.
    """
    wide = Way(model, warm_up(model), model.cores)
    weights = sum(record.size for record in model.manifest.files.values())
    if model.cores > 1 and Layout.of(model.manifest).batched and weights <= LARGEST_TWICE:
        length = _warm_up_length(model)
        narrow = _open_narrow(model, length)
        if narrow and _per_row(narrow.cost, length) / model.cores < AS_GOOD * _per_row(wide.cost, length):
            return Lanes(wide, narrow)
    return Lanes(wide)


def _open_narrow(model: TensorModel, length: int) -> Way | None:
    """The model on one thread, measured while as many run as there are cores. None where that fails."""
    cost = CostModel()
    try:
        narrow = TensorModel(model.bundle, threads=1)
        with ThreadPoolExecutor(model.cores) as threads:
            run = _side_by_side(_timed(narrow, length), model.cores, threads)
            measure(cost, run, length=length, budget=WARM_UP_SECONDS)
    except Exception:
        # Such as memory that there is not: all cores still answer.
        logger.warning("%s: cannot be opened on one thread", model.manifest.tag, exc_info=True)
        return None
    cost.settle(length)
    return Way(narrow, cost, 1)


def _per_row(cost: CostModel, length: int) -> float:
    rows = cost.best_rows(length)
    return cost.seconds(rows, length) / rows


def _side_by_side(
    run: Callable[[int], float], number: int, threads: ThreadPoolExecutor
) -> Callable[[int], float]:
    """Times as many runs at once: each takes its time while the others want the same memory."""

    def run_all(rows: int) -> float:
        started = perf_counter()
        list(threads.map(run, [rows] * number))
        return perf_counter() - started

    return run_all


def scheduling(model: TextModel, settings: Settings) -> Callable[[TextModel, int], Scheduler]:
    """How a text model's schedulers are made: with what memory, and what speculates.

    Raises what `service.proposers.proposing` raises.
    """
    propose = proposing(model, settings)

    def make(model: TextModel, slots: int) -> Scheduler:
        return model.scheduler(slots, memory=settings.kv_bytes, proposer=propose(model))

    return make


def warm_up(model: TensorModel) -> CostModel:
    """What made-up rows cost, measured. Raises ModelFailed for a model that cannot run at all."""
    cost, layout, length = CostModel(), Layout.of(model.manifest), _warm_up_length(model)
    # What a first check reads, such as the tokenizer, is not left to the first request.
    with suppress(InputError):
        model.check(made_up(model.manifest, 1, length))
    run = _timed(model, length)
    try:
        if layout.batched:
            measure(cost, run, length=length, budget=WARM_UP_SECONDS)
        else:
            cost.observe(1, length, run(1))
    except Exception as error:
        raise ModelFailed(f"{model.manifest.tag} does not run: {error}; publish it again") from error
    return cost


def _warm_up_length(model: TensorModel) -> int:
    return WARM_UP_LENGTH if Layout.of(model.manifest).sequence is not None else 1


def _timed(model: TensorModel, length: int) -> Callable[[int], float]:
    def run(rows: int) -> float:
        inputs = made_up(model.manifest, rows, length)
        started = perf_counter()
        model.run_checked(inputs)
        return perf_counter() - started

    return run


def made_up(manifest: Manifest, rows: int, length: int) -> Mapping[str, Array]:
    """Inputs of the signature's shapes: ones for a mask, else zeros, which every embedding knows."""
    inputs = {}
    for spec in manifest.signature.inputs:
        sizes = [rows if i == 0 and isinstance(axis, str) else axis for i, axis in enumerate(spec.shape)]
        shape = [length if isinstance(size, str) else size for size in sizes]
        fill = np.ones if spec.name == "attention_mask" else np.zeros
        inputs[spec.name] = fill(shape, spec.dtype)
    return inputs
