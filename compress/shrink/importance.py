"""What a unit is worth: by its weights, by the loss without it, or by how loud it is on real inputs.

- magnitude: the L2 norm of all weights that go with the unit.
- taylor: |sum of w dL/dw| over the weights that read the unit, summed over batches. That sum is the
  derivative of the loss by a gate on the unit, the first-order change when it closes (Molchanov et al., 2019,
  arXiv:1906.10771, equation 8 and section 3.3).
- activation: the L2 norm of the unit's values as its readers see them.

A layer of a transformer is a unit too: magnitude of all its weights, a gate on what it adds to the stream,
and the norm of what it adds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compress.shrink.units import Cut, Units, per_unit

Batch = dict[str, Tensor]
# A module and a batch -> the mean loss, or any output.
Forward = Callable[[nn.Module, Batch], Any]


def magnitudes(module: nn.Module, units: Units) -> Tensor:
    """The L2 norm of each unit's weights, float32 [units]."""
    if units.kind == "layers":
        layers = module.get_submodule(units.name).children()
        return torch.stack([_norm(layer) for layer in layers])
    parameters = dict(module.named_parameters())
    total = torch.zeros(units.count)
    for cut in units.cuts:
        if cut.tensor in parameters:
            total += per_unit(_along(parameters[cut.tensor].detach().square(), cut.axis), cut, units.count)
    return total.sqrt()


def taylor(
    module: nn.Module, all_units: Sequence[Units], batches: Iterable[Batch], loss: Forward
) -> list[Tensor]:
    """|dL/dgate| of every unit summed over `batches`, a tensor [units] for each of `all_units`.

    The module is left as it was, without gradients.
    """
    totals = [torch.zeros(units.count) for units in all_units]
    parameters = dict(module.named_parameters())
    for batch in batches:
        with _layer_gates(module, all_units) as gates:
            loss(module, batch).backward()
        for index, (total, units) in enumerate(zip(totals, all_units, strict=True)):
            grad = gates[index].grad if index in gates else _gate_gradient(units, parameters)
            total += 0.0 if grad is None else grad.abs()
        module.zero_grad(set_to_none=True)
    return totals


def activations(
    module: nn.Module, all_units: Sequence[Units], batches: Iterable[Batch], forward: Forward
) -> list[Tensor]:
    """The L2 norm over `batches` of every unit's values, a tensor [units] for each of `all_units`."""
    totals = [torch.zeros(units.count) for units in all_units]
    handles = []
    for total, units in zip(totals, all_units, strict=True):
        for index, layer in enumerate(_layers(module, units)):
            handles.append(layer.register_forward_hook(partial(_add_change, total, index), with_kwargs=True))
        for cut in units.reading():
            reader = module.get_submodule(cut.tensor.rpartition(".")[0])
            handles.append(reader.register_forward_pre_hook(partial(_add_energy, total, cut)))
    try:
        with torch.no_grad():
            for batch in batches:
                forward(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    return [total.sqrt() for total in totals]


def _gate_gradient(units: Units, parameters: dict[str, nn.Parameter]) -> Tensor:
    total = torch.zeros(units.count)
    for cut in units.reading():
        weight = parameters[cut.tensor]
        if weight.grad is not None:
            total += per_unit(_along(weight.detach() * weight.grad, cut.axis), cut, units.count)
    return total


@contextmanager
def _layer_gates(module: nn.Module, all_units: Sequence[Units]) -> Iterator[dict[int, Tensor]]:
    """By position in `all_units`, for units that are layers: gates of ones [layers] on what each adds."""
    gates: dict[int, Tensor] = {}
    handles = []
    for position, units in enumerate(all_units):
        for index, layer in enumerate(_layers(module, units)):
            gate = gates.setdefault(position, torch.ones(units.count, requires_grad=True))
            handles.append(layer.register_forward_hook(partial(_gated, gate, index), with_kwargs=True))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _gated(gate: Tensor, index: int, layer: nn.Module, inputs: Any, named: Any, output: Any) -> Any:
    before, after = _incoming(inputs, named), _stream(output)
    gated = before + gate[index] * (after - before)
    return gated if isinstance(output, Tensor) else (gated, *output[1:])


def _add_change(total: Tensor, index: int, layer: nn.Module, inputs: Any, named: Any, output: Any) -> None:
    total[index] += (_stream(output) - _incoming(inputs, named)).square().sum()


def _add_energy(total: Tensor, cut: Cut, reader: nn.Module, inputs: Any) -> None:
    axis = -1 if isinstance(reader, nn.Linear) else 1
    total += per_unit(_along(inputs[0].square(), axis), cut, len(total))


def _incoming(inputs: Any, named: Any) -> Tensor:
    """A layer's input, which models give by position or by name."""
    tensor: Tensor = inputs[0] if inputs else named["hidden_states"]
    return tensor


def _stream(output: Any) -> Tensor:
    tensor: Tensor = output if isinstance(output, Tensor) else output[0]
    return tensor


def _layers(module: nn.Module, units: Units) -> list[nn.Module]:
    return list(module.get_submodule(units.name).children()) if units.kind == "layers" else []


def _along(values: Tensor, axis: int) -> Tensor:
    """`values` summed over every axis but one."""
    return values.movedim(axis, 0).reshape(values.shape[axis], -1).sum(1)


def _norm(layer: nn.Module) -> Tensor:
    return torch.stack([parameter.detach().square().sum() for parameter in layer.parameters()]).sum().sqrt()
