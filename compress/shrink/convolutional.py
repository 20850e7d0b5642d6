"""The removable channels of a feed-forward net, and everything that depends on each, by tracing it.

`torch.fx` gives the graph, one example the shapes. Every tensor [batch, channels, ...] gets a layout: which
channels of which group lie where along axis 1. Operations that treat channels one by one pass layouts on;
additions and products join the groups of their operands; concatenation appends layouts; flattening widens
them. Whatever is not known to be of these kinds keeps all channels that it touches whole: a group is cut
only where every operation on it is understood (a dependency graph in the sense of Fang et al., DepGraph,
2023, arXiv:2301.12900, restricted to what can be checked).
"""

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from compress.errors import StepError, first_line
from compress.shrink.units import Cut, Role, Units

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Dropout, nn.Dropout2d, nn.Identity,
)  # fmt: skip
# By the rank of the tensors that they take as [batch, channels, ...].
POOLS: Mapping[type[nn.Module], int] = {
    nn.MaxPool1d: 3, nn.AvgPool1d: 3, nn.AdaptiveAvgPool1d: 3, nn.AdaptiveMaxPool1d: 3,
    nn.MaxPool2d: 4, nn.AvgPool2d: 4, nn.AdaptiveAvgPool2d: 4, nn.AdaptiveMaxPool2d: 4, nn.ZeroPad2d: 4,
    nn.Upsample: 4,
}  # fmt: skip
ELEMENTWISE_FUNCTIONS = {
    torch.relu, F.relu, F.relu6, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.leaky_relu, F.elu, F.mish,
    torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.dropout, torch.clamp,
    "relu", "relu_", "sigmoid", "tanh", "clamp", "contiguous",
}  # fmt: skip
POOL_FUNCTIONS = {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.max_pool2d}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Elementwise on two operands: what lies at the same channel of both meets.
JOINS = {
    operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.truediv,
    torch.add, torch.sub, torch.mul, torch.div, "add", "add_", "sub", "mul", "mul_", "div",
}  # fmt: skip
CONCATENATIONS = {torch.cat, torch.concat}
FLATTENINGS = {torch.flatten, "flatten"}
VIEWS = {torch.reshape, "view", "reshape"}
MEANS = {torch.mean, "mean", torch.amax, "amax"}


@dataclass(frozen=True, slots=True)
class _Run:
    """`count` units of a group side by side, each `span` entries of axis 1."""

    group: int
    count: int
    span: int = 1


_Layout = tuple[_Run, ...]


@dataclass(slots=True)
class _Group:
    """Channels that go together. `whole` says why they cannot go, where they cannot."""

    count: int
    cuts: list[Cut] = field(default_factory=list)
    whole: str | None = None


def channel_units(module: nn.Module, example: Sequence[Tensor]) -> tuple[list[Units], dict[str, str]]:
    """Every group of channels that can go, and for each layer whose channels cannot, the reason.

    `example` is a batch of the module's inputs. Raises StepError for a module that cannot be traced.
    """
    try:
        traced = fx.symbolic_trace(module)
        with torch.no_grad():
            ShapeProp(traced).propagate(*example)
    except Exception as error:  # whatever the user's forward raises on a proxy
        raise StepError(
            f"{type(module).__name__}: torch.fx cannot trace it ({first_line(error)}); 'channels' needs a "
            "forward without branches on its inputs"
        ) from None
    return _Analysis(traced, _shared(module, traced)).run()


class _Analysis:
    """One pass over the graph, in order."""

    def __init__(self, traced: fx.GraphModule, shared: set[str]) -> None:
        self.traced, self.modules = traced, dict(traced.named_modules())
        self.groups: list[_Group] = []
        self.parents: list[int] = []
        self.layouts: dict[fx.Node, _Layout] = {}
        self.shared = shared

    def run(self) -> tuple[list[Units], dict[str, str]]:
        for node in self.traced.graph.nodes:
            if node.op == "output":
                self._keep(node, "the network's output")
            elif not _is_size(node):
                layout = self._visit(node)
                self.layouts[node] = self._opaque(node) if layout is None else layout
        return self._result()

    def _visit(self, node: fx.Node) -> _Layout | None:
        """The node's layout; None where the operation is not understood."""
        if node.op == "call_module" and str(node.target) not in self.shared:
            return self._visit_module(node, self.modules[str(node.target)])
        if node.op not in ("call_function", "call_method"):
            return None
        return self._visit_function(node)

    def _visit_module(self, node: fx.Node, layer: nn.Module) -> _Layout | None:
        source = _only_input(node)
        if source is None or source not in self.layouts:
            return None
        rank = len(_shape(source))
        if type(layer) is nn.Linear and _plain(layer):
            return self._transform(source, str(node.target), layer) if rank == 2 else None
        if isinstance(layer, _ConvNd) and type(layer) in CONVOLUTIONS and _plain(layer):
            return self._convolve(source, str(node.target), layer)
        if isinstance(layer, _BatchNorm):
            return self._carry(source, str(node.target), layer)
        if isinstance(layer, nn.Flatten):
            flattens = (layer.start_dim, layer.end_dim) in ((1, -1), (1, rank - 1))
            return self._flatten(source, node) if flattens else None
        pools = POOLS.get(type(layer)) == rank and not getattr(layer, "return_indices", False)
        return self.layouts[source] if type(layer) in ELEMENTWISE or pools else None

    def _visit_function(self, node: fx.Node) -> _Layout | None:
        target: Any = node.target
        if target in CONCATENATIONS:
            return self._concatenate(node)
        tensors = [each for each in node.all_input_nodes if not _is_size(each)]
        if any(each not in self.layouts or len(_shape(each)) < 2 for each in tensors):
            return None
        if target in JOINS and tensors:
            return self._join(tensors)
        if len(tensors) != 1 or node.args[:1] != (tensors[0],):
            return None
        return self._reshape(node, tensors[0], target)

    def _reshape(self, node: fx.Node, source: fx.Node, target: Any) -> _Layout | None:
        """Functions of one tensor."""
        rank = len(_shape(source))
        if target in FLATTENINGS:
            start, end = _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)
            return self._flatten(source, node) if start == 1 and end in (-1, rank - 1) else None
        if target in VIEWS:
            sizes = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
            return self._flatten(source, node) if len(sizes) == 2 and sizes[1] == -1 else None
        if target in MEANS:
            dims = _argument(node, 1, "dim", None)
            axes = [dims] if isinstance(dims, int) else dims
            spatial = isinstance(axes, Sequence) and len(axes) and all(axis % rank > 1 for axis in axes)
            return self.layouts[source] if spatial else None
        pools = target in POOL_FUNCTIONS and rank == 4 and not node.kwargs.get("return_indices")
        return self.layouts[source] if target in ELEMENTWISE_FUNCTIONS or pools else None

    def _convolve(self, source: fx.Node, name: str, layer: _ConvNd) -> _Layout | None:
        if len(_shape(source)) != layer.weight.ndim:
            return None
        if layer.groups == 1:
            return self._transform(source, name, layer)
        if layer.groups != layer.in_channels:
            return None
        return self._carry(source, name, layer, layer.out_channels // layer.in_channels)

    def _transform(self, source: fx.Node, name: str, layer: nn.Module) -> _Layout:
        """A layer that reads every channel and writes new ones."""
        self._cut(source, f"{name}.weight", 1, "reads")
        count = len(layer.get_parameter("weight"))
        group = self._new(_Group(count))
        self.groups[group].cuts += [Cut(each, 0, "writes") for each in _tensors(name, layer)]
        return (_Run(group, count),)

    def _carry(self, source: fx.Node, name: str, layer: nn.Module, factor: int = 1) -> _Layout:
        """A layer that treats channels one by one, `factor` outputs for each."""
        for tensor in _tensors(name, layer):
            self._cut(source, tensor, 0, "carries", factor)
        return tuple(_Run(run.group, run.count, run.span * factor) for run in self.layouts[source])

    def _flatten(self, source: fx.Node, node: fx.Node) -> _Layout | None:
        before, after = _shape(source), _shape(node)
        if len(after) != 2 or before[0] != after[0]:
            return None
        factor = math.prod(before[2:])
        return tuple(_Run(run.group, run.count, run.span * factor) for run in self.layouts[source])

    def _concatenate(self, node: fx.Node) -> _Layout | None:
        parts: Any = _argument(node, 0, "tensors", ())
        tensors = (
            [part for part in parts if isinstance(part, fx.Node)] if isinstance(parts, tuple | list) else []
        )
        axis = _argument(node, 1, "dim", 0)
        known = all(each in self.layouts and len(_shape(each)) > 1 for each in tensors)
        if not tensors or not known or axis not in (1, 1 - len(_shape(node))):
            return None
        return tuple(run for each in tensors for run in self.layouts[each])

    def _join(self, tensors: Sequence[fx.Node]) -> _Layout | None:
        first, *others = tensors
        for other in others:
            same = [(run.count, run.span) for run in self.layouts[first]] == [
                (run.count, run.span) for run in self.layouts[other]
            ]
            if not same or len(_shape(first)) != len(_shape(other)):
                return None
            for left, right in zip(self.layouts[first], self.layouts[other], strict=True):
                self._unite(left.group, right.group)
        return self.layouts[first]

    def _opaque(self, node: fx.Node) -> _Layout:
        """What an operation that is not understood touches stays whole, and so does what it yields."""
        what = {"placeholder": "the network's input", "get_attr": "a parameter used as it is"}.get(node.op)
        reason = what or f"'{_name(node, self.modules)}' is not known to treat channels one by one"
        self._keep(node, reason)
        shape = _shape(node)
        return (_Run(self._new(_Group(shape[1], whole=reason)), shape[1]),) if len(shape) > 1 else ()

    def _keep(self, node: fx.Node, reason: str) -> None:
        for source in node.all_input_nodes:
            for run in self.layouts.get(source, ()):
                group = self.groups[self._root(run.group)]
                group.whole = group.whole or reason

    def _cut(self, source: fx.Node, tensor: str, axis: int, role: Role, factor: int = 1) -> None:
        offset = 0
        for run in self.layouts[source]:
            cut = Cut(tensor, axis, role, offset, run.span * factor)
            self.groups[self._root(run.group)].cuts.append(cut)
            offset += run.count * run.span * factor

    def _new(self, group: _Group) -> int:
        self.groups.append(group)
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def _root(self, group: int) -> int:
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    def _unite(self, left: int, right: int) -> None:
        one, other = sorted((self._root(left), self._root(right)))
        if one != other:
            self.parents[other] = one
            kept, gone = self.groups[one], self.groups[other]
            kept.cuts += gone.cuts
            kept.whole = kept.whole or gone.whole

    def _result(self) -> tuple[list[Units], dict[str, str]]:
        found, whole = [], {}
        for index, group in enumerate(self.groups):
            writers = [cut.tensor for cut in group.cuts if cut.role == "writes"]
            layers = list(dict.fromkeys(tensor.rpartition(".")[0] for tensor in writers))
            if self._root(index) != index or not layers:
                continue
            name = "+".join(layers)
            if group.whole:
                whole[name] = group.whole
            else:
                found.append(Units(name, "channels", group.count, tuple(group.cuts)))
        return found, whole


def _shared(module: nn.Module, traced: fx.GraphModule) -> set[str]:
    """Layers with tensors that run twice, or that share one with another: cutting one would cut the other."""
    calls = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    owners: dict[int, set[str]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            owners.setdefault(id(tensor), set()).add(name)
    sharing = {name for names in owners.values() if len(names) > 1 for name in names}
    twice = {name for name, count in calls.items() if count > 1 and module.get_submodule(name).state_dict()}
    return sharing | twice


def _plain(layer: nn.Module) -> bool:
    """Whether the layer's weight is its own parameter, not computed from others (weight norm, masks)."""
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    return (
        "weight" in own and own <= {"weight", "bias"} and not any(True for _ in layer.buffers(recurse=False))
    )


def _is_size(node: fx.Node) -> bool:
    """The batch size, or the shape that only the batch size is taken from: no channel is touched."""
    if node.op == "call_method" and node.target == "size" and not _is_shape(node):
        return node.args[1:2] == (0,) or bool(node.kwargs.get("dim") == 0)
    if node.op == "call_function" and node.target is operator.getitem:
        source, index = node.args
        return isinstance(source, fx.Node) and _is_shape(source) and isinstance(index, int) and index == 0
    return _is_shape(node) and all(_is_size(user) for user in node.users)


def _is_shape(node: fx.Node) -> bool:
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] == "shape"
    return node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs


def _only_input(node: fx.Node) -> fx.Node | None:
    return node.all_input_nodes[0] if len(node.all_input_nodes) == 1 else None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _shape(node: fx.Node) -> tuple[int, ...]:
    meta = node.meta.get("tensor_meta")
    return tuple(getattr(meta, "shape", ()))


def _tensors(name: str, layer: nn.Module) -> list[str]:
    """The names of a layer's own tensors along its output channels."""
    own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    return [f"{name}.{part}" for part, tensor in own if tensor.ndim]


def _name(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    if node.op == "call_module":
        return f"{node.target} ({type(modules[str(node.target)]).__name__})"
    target: str | Callable[..., Any] = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
