"""A transformer's stack of layers: found, cut down to some of them, and listened to.

It knows no architecture: the stack is the one ModuleList as long as the configuration says that there are
layers. A model whose layers stand in several stacks (an encoder and a decoder) is not taken.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import StepError

# Settings of transformers' configurations that have one entry a layer.
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")


def stack_of(module: nn.Module, what: str) -> nn.ModuleList:
    """The layers of a transformers model (or of a module around one). Raises StepError, naming `what`."""
    count = getattr(_config(module), "num_hidden_layers", None)
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    # A layer may hold lists of its own, by chance as long as the stack.
    nested = {id(inner) for outer in lists for inner in outer.modules() if inner is not outer}
    stacks = [part for part in lists if len(part) == count and id(part) not in nested]
    if count is None or len(stacks) != 1:
        raise StepError(
            f"{what}: {len(stacks)} stacks of transformer layers found where one is needed; "
            "use a student of 'source', without 'hidden'"
        )
    return stacks[0]


def chosen_layers(layers: Any, count: int) -> tuple[int, ...]:
    """The indices that `StudentConfig.layers` means for a teacher of `count` layers. Raises StepError."""
    if layers == "every-other":
        return tuple(range(0, count, 2))
    if layers == "first-last":
        return tuple(sorted({0, count - 1}))
    if layers[-1] >= count:
        raise StepError(f"distill: student layer {layers[-1]}: the teacher's layers are 0 to {count - 1}")
    return tuple(layers)


def most_important(module: nn.Module, what: str, run: Callable[[], object]) -> tuple[int, ...]:
    """The half of the layers, rounded up, that turn their inputs most over what `run` sends through `module`.

    The influence of a layer is 1 - cos(input, output), averaged over positions (Men et al., ShortGPT, 2024,
    arXiv:2403.03853, equation 1). Raises StepError for layers of different shapes: the stored student could
    not be told from another.
    """
    stack = stack_of(module, what)
    shapes = {tuple((name, p.shape) for name, p in layer.named_parameters()) for layer in stack}
    if len(shapes) > 1:
        raise StepError(f"{what}: its layers have different shapes; list the student's layers by number")
    influence = torch.zeros(len(stack))

    def note(index: int, inputs: Any, named: Any, output: Any) -> None:
        before = inputs[0] if inputs else named["hidden_states"]
        after = output if isinstance(output, Tensor) else output[0]
        influence[index] += (1 - F.cosine_similarity(before, after, dim=-1)).mean()

    handles = [
        layer.register_forward_hook(
            lambda layer, inputs, named, output, index=index: note(index, inputs, named, output),
            with_kwargs=True,
        )
        for index, layer in enumerate(stack)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    best = influence.argsort(descending=True, stable=True)[: -(-len(stack) // 2)]
    return tuple(sorted(best.tolist()))


def with_layers(teacher: nn.Module, kept: Sequence[int], what: str) -> nn.Module:
    """A copy of `teacher` with the layers `kept`, numbered anew, and a configuration that says so."""
    student = copy.deepcopy(teacher)
    stack = stack_of(student, what)
    survivors = [stack[index] for index in kept]
    del stack[:]
    stack.extend(survivors)
    for index, layer in enumerate(stack):
        _renumber(layer, index)
    _shorten(_config(student), kept)
    return student


@contextmanager
def captured(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of `layers`, in their order, of the forward pass that runs inside."""
    outputs: list[Tensor] = []

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _config(module: nn.Module) -> Any:
    configs = (part.config for part in module.modules() if hasattr(part, "config"))
    return next((config for config in configs if hasattr(config, "num_hidden_layers")), None)


def _renumber(layer: nn.Module, index: int) -> None:
    """The index decides which part of the KV cache a layer writes to."""
    for part in layer.modules():
        if hasattr(part, "layer_idx"):
            part.layer_idx = index  # type: ignore[assignment]


def _shorten(config: Any, kept: Sequence[int]) -> None:
    count = config.num_hidden_layers
    for name in PER_LAYER:
        values = getattr(config, name, None)
        if isinstance(values, list) and len(values) == count:
            setattr(config, name, [values[index] for index in kept])
    config.num_hidden_layers = len(kept)
