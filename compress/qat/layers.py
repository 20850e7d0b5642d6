"""The two lives of a quantized layer: in training a float layer that rounds, afterwards integers with scales.

The second is what is saved and exported. Traced for export it writes QuantizeLinear and DequantizeLinear;
called, it computes what they mean. Kernels then multiply in int8 where they fuse those nodes.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.qat.quantizers import ActivationQuantizer, Ranges, WeightQuantizer
from compress.qat.rounding import ACTIVATION, BIAS, ZERO, codes, fake_quantize, weight_levels

Quantizable = nn.Linear | nn.Conv1d | nn.Conv2d
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class TrainedLayer(nn.Module):
    """`layer` with its weight rounded, and its input too where `rounds_input`."""

    def __init__(self, layer: Quantizable, ranges: Ranges, *, rounds_input: bool, reduce_range: bool) -> None:
        super().__init__()
        self.layer = layer
        self.inputs = ActivationQuantizer(ranges) if rounds_input else None
        self.weights = WeightQuantizer(layer.weight, ranges, weight_levels(reduce_range))

    @property
    def weight(self) -> Tensor:
        """The float weight that is trained."""
        return self.layer.weight

    def __getattr__(self, name: str) -> Any:
        """What else a model asks its layer for, such as a stride."""
        own = name == "layer" or name in _own(self)
        return super().__getattr__(name) if own else getattr(self.layer, name)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's."""
        weight, bias = self.weights(self.layer.weight), self.layer.bias
        if self.inputs is not None:
            x = self.inputs(x)
            bias = None if bias is None else self._rounded_bias(bias)
        return apply(self.layer, x, weight, bias)

    def _rounded_bias(self, bias: Tensor) -> Tensor:
        # Its zero is where it is: the backward pass clamps between tensors, all of which a GPU wants with it.
        scale = self.bias_scale()
        return fake_quantize(bias, scale, torch.zeros_like(scale), BIAS)

    @torch.no_grad()
    def bias_scale(self) -> Tensor:
        """The scale [out] of the integer sums that the bias joins: it is no choice, and takes no gradient."""
        assert self.inputs is not None
        return self.inputs.grid()[0] * self.weights.grid(self.layer.weight).flatten()


class QuantizedLayer(nn.Module):
    """A layer stored as integers: its weight in int8 with a scale an output; its input in uint8, its bias in
    int32 with the scale of the integer sums that it joins.

    A linear layer's weight is held as [in, out], as the kernels for it want it; a convolution's as
    [out, in, ...]. Where the input is not rounded, it and the bias stay float32.
    """

    weight_codes: Tensor
    weight_scale: Tensor

    def __init__(self, layer: Quantizable, *, rounds_input: bool) -> None:
        super().__init__()
        self.call, self.axis = _without_weight(layer), 1 if isinstance(layer, nn.Linear) else 0
        self.rounds_input, self.has_bias = rounds_input, layer.bias is not None
        outputs = len(layer.weight)
        self._store(
            "weight", layer.weight.shape[::-1] if self.axis else layer.weight.shape, torch.int8, outputs
        )
        if rounds_input:
            self.register_buffer("input_scale", torch.ones(()))
            self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.uint8))
        if rounds_input and self.has_bias:
            self._store("bias", (outputs,), torch.int32, outputs)
        else:
            self.bias = layer.bias

    @classmethod
    @torch.no_grad()
    def of(cls, trained: TrainedLayer) -> "QuantizedLayer":
        """What `trained` computes in evaluation mode, as integers."""
        layer, quantizer = trained.layer, trained.weights
        made = cls(layer, rounds_input=trained.inputs is not None)
        scale = quantizer.grid(layer.weight)
        integers = codes(layer.weight, scale, ZERO, quantizer.levels)
        made.weight_codes.copy_(integers.T if made.axis else integers)
        made.weight_scale.copy_(scale.flatten())
        if trained.inputs is not None:
            input_scale, zero_point = trained.inputs.grid()
            made.get_buffer("input_scale").copy_(input_scale)
            made.get_buffer("input_zero_point").copy_(zero_point)
            if layer.bias is not None:
                made.get_buffer("bias_codes").copy_(codes(layer.bias, trained.bias_scale(), ZERO, BIAS))
                made.get_buffer("bias_scale").copy_(trained.bias_scale())
        return made.eval()

    @property
    def weight(self) -> Tensor:
        """What the integers mean, shaped as the layer's, for modules that look at it instead of calling."""
        integers, scale = self.get_buffer("weight_codes"), self.get_buffer("weight_scale")
        codes_first = integers.T if self.axis else integers
        return codes_first.float() * scale.reshape(-1, *[1] * (integers.ndim - 1))

    def __getattr__(self, name: str) -> Any:
        """What else a model asks its layer for, such as a stride."""
        if name == "call" or name in _own(self):
            return super().__getattr__(name)
        return self._stored("bias") if name == "bias" else getattr(self.call, name)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's, float32 in and out."""
        bias = self.bias if not (self.rounds_input and self.has_bias) else self._stored("bias")
        weight = self._stored("weight", self.axis)
        if self.rounds_input:
            x = _rounded(x, self.get_buffer("input_scale"), self.get_buffer("input_zero_point"))
        if self.axis:
            # One operator whatever the rank: onnxruntime fuses it with its neighbours as each rank wants.
            product = x @ weight
            return product if bias is None else product + bias
        return apply(self.call, x, weight, bias)

    def _store(self, name: str, shape: Sequence[int], dtype: torch.dtype, outputs: int) -> None:
        self.register_buffer(f"{name}_codes", torch.zeros(tuple(shape), dtype=dtype))
        self.register_buffer(f"{name}_scale", torch.ones(outputs))
        # All zero, and still written into the graph: without it onnxruntime 1.31 does not fuse a Gemm.
        zeros = torch.zeros(outputs, dtype=dtype)
        self.register_buffer(f"{name}_zero_point", zeros, persistent=False)

    def _stored(self, name: str, axis: int = 0) -> Tensor:
        integers, scale, zero_point = (
            self.get_buffer(f"{name}_{part}") for part in ("codes", "scale", "zero_point")
        )
        if torch.compiler.is_exporting():
            return _dequantize_node(integers, scale, zero_point, axis=axis)
        return integers.float() * scale.reshape(-1, *[1] * (integers.ndim - 1 - axis))


def _rounded(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """`x` as it comes back from uint8; in an export, the two nodes that say so."""
    if torch.compiler.is_exporting():
        stored = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, scale, zero_point), dtype=torch.uint8, shape=x.shape
        )
        return _dequantize_node(stored, scale, zero_point)
    integers = codes(x, scale, zero_point.float(), ACTIVATION)
    return (integers - zero_point.float()) * scale


def _dequantize_node(integers: Tensor, scale: Tensor, zero_point: Tensor, *, axis: int = 0) -> Tensor:
    return torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (integers, scale, zero_point),
        {"axis": axis} if scale.ndim else {},
        dtype=torch.float32,
        shape=integers.shape,
    )


def apply(layer: Quantizable, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `layer` computes with another weight and bias."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    result: Tensor = layer._conv_forward(x, weight, bias)
    return result


def quantizable(module: nn.Module) -> dict[str, Quantizable]:
    """Every linear layer and convolution by name whose weight is its own; subclasses stay as they are."""
    owners: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) in KINDS and isinstance(layer, KINDS) and owners.get(id(layer.weight)) == 1
    }


def replace(module: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put each of `layers` into `module` by name."""
    for name, layer in layers.items():
        module.set_submodule(name, layer)


def _own(module: nn.Module) -> set[str]:
    """The names of what torch keeps for a module: its tensors and modules."""
    kept = ("_parameters", "_buffers", "_modules")
    return {name for each in kept for name in module.__dict__.get(each, ())}


def _without_weight(layer: Quantizable) -> Quantizable:
    """How a layer is applied (stride, padding), holding nothing."""
    bare = copy.copy(layer)
    bare._parameters = {"weight": None, "bias": None}
    return bare
