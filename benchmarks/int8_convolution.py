"""Where int8 convolutions start to pay: float32 against QDQ int8, by the number of input channels.

    python benchmarks/int8_convolution.py

It sets the default of `min_channels` in `compress/quantize/config.py`: below it, int8 kernels lose.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.machine import machine
from compress.quantize.config import CalibrationConfig, Int8Static
from compress.quantize.int8 import static
from runtime.session import open_session

CHANNELS = (1, 3, 8, 16, 24, 32, 48, 64, 128)
SIDE, BATCH = 16, 8
ROUNDS, CALLS = 9, 30


def main() -> None:
    """Print one row for each number of channels."""
    print(machine())
    print(f"{'channels':>8} {'fp32 ms':>9} {'int8 ms':>9} {'speed-up':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for channels in CHANNELS:
            full, small = compare(channels, Path(folder))
            print(f"{channels:>8} {full:>9.3f} {small:>9.3f} {full / small:>8.2f}x")


def compare(channels: int, folder: Path) -> tuple[float, float]:
    """Median milliseconds of one 3x3 convolution in float32 and in int8, in interleaved rounds."""
    source, target = folder / f"{channels}.onnx", folder / f"{channels}-int8.onnx"
    onnx.save(convolution(channels), source)
    images = np.random.default_rng(0).random((BATCH, channels, SIDE, SIDE), np.float32)
    config = Int8Static(scheme="int8-static", min_channels=1, calibration=CalibrationConfig(samples=BATCH))
    static(config, source, target, batches(images))
    sessions = [open_session(path) for path in (source, target)]
    rounds = [[seconds(session, images) for session in sessions] for _ in range(ROUNDS)]
    full, small = np.median(rounds, 0) * 1e3
    return float(full), float(small)


def convolution(channels: int) -> onnx.ModelProto:
    """Conv 3x3 and ReLU over [batch, channels, 16, 16], with at least 16 output channels."""
    shape = (max(channels, 16), channels, 3, 3)
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", shape[0], SIDE, SIDE])
    graph = helper.make_graph(nodes, "convolution", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def batches(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """The images as calibration data."""
    yield {"x": images}


def seconds(session, images: np.ndarray) -> float:  # type: ignore[no-untyped-def]
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(CALLS):
        session.run(None, {"x": images})
    return (time.perf_counter() - start) / CALLS


if __name__ == "__main__":
    main()
