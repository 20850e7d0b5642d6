from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from compress.qat.rounding import (
    ACTIVATION,
    ZERO,
    Levels,
    affine_range,
    codes,
    fake_quantize,
    scale_gradient,
    symmetric_scale,
    weight_levels,
)
from runtime.session import open_session


def values(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 3)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.013, 117), (0.5, 128), (0.031, 0)])
def test_forward_is_onnxs_to_the_bit(tmp_path: Path, scale: float, zero_point: int) -> None:
    """Ties too: a scale of 0.5 over multiples of 0.25 rounds half of them from the middle."""
    x = torch.cat([values(4000), torch.arange(-400, 400) * 0.25])
    grid = [np.float32(scale), np.uint8(zero_point)]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, kind, [None]) for name, kind in (("x", 1), ("q", 2), ("y", 1))
    ]
    stored = [
        numpy_helper.from_array(np.asarray(value), name) for value, name in zip(grid, "sz", strict=True)
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    path = tmp_path / "q.onnx"
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path
    )
    integers, back = open_session(path).run(["q", "y"], {"x": x.numpy()})
    ours = torch.tensor(scale), torch.tensor(float(zero_point))
    np.testing.assert_array_equal(codes(x, *ours, ACTIVATION).numpy(), integers)
    np.testing.assert_array_equal(fake_quantize(x, *ours, ACTIVATION).numpy(), back)


def test_the_gradients_are_those_of_lsq() -> None:
    """Equations 3 and 4 element by element, for weights of which some lie outside the range."""
    x, scale = values(300).requires_grad_(), torch.tensor(0.05, requires_grad=True)
    levels = Levels(-63, 63)
    fake_quantize(x, scale, ZERO, levels).sum().backward()
    steps = (x / scale).detach().numpy()
    inside = np.abs(steps) <= 63.5
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(x.grad, inside.astype(np.float32))
    wanted = np.where(inside, np.round(steps) - steps, np.sign(steps) * 63).sum()
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(float(wanted), rel=1e-4)


def test_the_gradient_of_a_scale_is_the_slope_with_the_rounding_held_still() -> None:
    """Finite differences of (x / s + c) s, where c is what rounding added; the clipped end moves with s."""
    x, at, eps = values(50).double(), 0.04, 1e-6
    kept = (torch.round(x / at) - x / at).detach()

    def surrogate(scale: float) -> float:
        return float((torch.clamp(x / scale + kept, -63, 63) * scale).pow(2).sum())

    scale = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    fake_quantize(x, scale, ZERO.double(), Levels(-63, 63)).pow(2).sum().backward()
    assert scale.grad is not None
    slope = (surrogate(at + eps) - surrogate(at - eps)) / (2 * eps)
    assert float(scale.grad) == pytest.approx(slope, rel=1e-3)


def test_scales_of_rows_get_their_own_gradients() -> None:
    weight, scale = values(3, 20), torch.full((3, 1), 0.1, requires_grad=True)
    fake_quantize(weight, scale, torch.zeros(3, 1), Levels(-63, 63))[1].sum().backward()
    assert scale.grad is not None
    assert scale.grad.shape == (3, 1)
    assert scale.grad[1] != 0
    assert scale.grad[0] == scale.grad[2] == 0


def test_the_gradients_scale_is_lsqs_and_the_value_stays() -> None:
    scale = torch.tensor([0.3], requires_grad=True)
    scaled = scale_gradient(scale, 400, Levels(-127, 127))
    assert float(scaled) == pytest.approx(0.3)
    scaled.sum().backward()
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(1 / np.sqrt(400 * 127))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-2.0, -0.5), (0.0, 0.0)])
def test_a_range_covers_its_ends_and_keeps_zero_exact(low: float, high: float) -> None:
    scale, zero_point = affine_range(torch.tensor(low), torch.tensor(high))
    ends = torch.tensor([low, high, 0.0])
    rounded = fake_quantize(ends, scale, zero_point, ACTIVATION)
    assert (rounded - ends).abs().max() <= scale
    assert rounded[2] == 0
    assert float(zero_point) == int(zero_point)


def test_weights_never_leave_their_levels() -> None:
    weight = values(4, 5, 3, 3)
    for levels in (weight_levels(True), weight_levels(False)):
        integers = codes(weight, symmetric_scale(weight, levels), ZERO, levels)
        assert integers.abs().amax((1, 2, 3)).tolist() == [levels.high] * 4
    assert weight_levels(True) == Levels(-63, 63)
