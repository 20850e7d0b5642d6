"""How much a model's outputs change when one weight alone is rounded: measured, on real inputs.

The weights become inputs of the graph that default to themselves, so one session serves every trial and a
trial is one run with one weight replaced. The change of logits is their Kullback-Leibler divergence (in nats,
a prediction: for a language model, about what the logarithm of its perplexity grows by); of other outputs,
the squared error relative to their energy.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from compress.quantize.blockwise import Floats
from compress.quantize.graph import Use
from compress.quantize.observe import Feeds, graph_feeds, run_graph
from runtime.manifest import Graph
from runtime.processing import Array
from runtime.session import open_session

LOGITS = "logits"


class Probe:
    """A graph over a fixed set of inputs, whose weights can be replaced for a run."""

    def __init__(
        self, model: ModelProto, graph: Graph, batches: Iterable[Feeds], weights: Sequence[str], folder: Path
    ) -> None:
        """`folder` holds the changed graph while it is loaded. Raises StepError for inputs it refuses."""
        scratch = folder / "probe.onnx"
        _save_replaceable(model, weights, scratch)
        try:
            self._session = open_session(scratch)
        finally:
            scratch.unlink(missing_ok=True)
        # A decoder's caches are outputs too, and what they hold shows in the logits.
        names = [value.name for value in model.graph.output]
        self._output = LOGITS if LOGITS in names else names[0]
        self._feeds = list(graph_feeds(graph, batches))
        self._wanted = [self._outputs(feeds, {}) for feeds in self._feeds]

    def damage(self, replaced: Mapping[str, Floats]) -> float:
        """The mean change of the output with these weights by name, laid out as the graph stores them."""
        measure = divergence if self._output == LOGITS else relative_error
        pairs = zip(self._wanted, (self._outputs(feeds, replaced) for feeds in self._feeds), strict=True)
        return float(np.mean([measure(wanted, got) for wanted, got in pairs]))

    def _outputs(self, feeds: Feeds, replaced: Mapping[str, Floats]) -> Array:
        return run_graph(self._session, [self._output], {**feeds, **replaced})[0]


def as_stored(uses: Sequence[Use], weight: Floats) -> Iterator[tuple[str, Floats]]:
    """`weight` [out, in] under each name and in each layout that the graph stores it."""
    for use in uses:
        yield use.weight, np.ascontiguousarray(weight.T) if use.transposed else weight


def divergence(wanted: Array, got: Array) -> float:
    """KL(wanted || got) in nats of the distributions that logits [..., classes] stand for, their mean."""
    one, other = _log_softmax(wanted), _log_softmax(got)
    return float((np.exp(one) * (one - other)).sum(-1).mean())


def relative_error(wanted: Array, got: Array) -> float:
    """Squared error over the energy of what was wanted."""
    return float(((got - wanted) ** 2).sum() / max(float((wanted**2).sum()), 1e-30))


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _save_replaceable(model: ModelProto, weights: Sequence[str], path: Path) -> None:
    changed = ModelProto()
    changed.CopyFrom(model)
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    changed.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in weights
    )
    onnx.save_model(changed, str(path))
