"""The only place that makes an onnxruntime session: providers, thread budget, and errors in plain words.

It does not run anything. The trade-offs: worker threads do not spin between calls, which costs some
microseconds a call and gives the cores back to the other sessions and to the web server; attention over a
cache keeps a call's scores in memory, float32 [rows, heads, tokens, capacity], where its other kernel would
not, because it is faster (docs/log.md).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from runtime import cgroup
from runtime.errors import GraphError
from runtime.manifest import DType, TensorSpec
from runtime.memory import give_back_freed

# onnxruntime 1.31 reads it when it makes GroupQueryAttention's CPU kernel, and only then. Set it to 0 to have
# the other kernel.
os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")

# How long a thread that spins looks for the next operator before it sleeps. Most come within this time; on
# cores that others use as well, a thread that stays awake keeps the one it waits for from running.
SPIN_MICROSECONDS = 50

DTYPES: dict[str, DType] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def open_session(path: Path, *, threads: int | None = None, spinning: bool = False) -> ort.InferenceSession:
    """A session over the graph at `path`, on the GPU when onnxruntime has one, else on the CPU.

    `threads` is the number of cores one run may use (default: all this process may use). With `spinning` they
    wait for the next operator of a run without sleeping at first, never for the next run.
    Raises GraphError where the file is missing, not ONNX, or refused by onnxruntime.
    """
    if not path.is_file():
        raise GraphError(f"{path}: no such file; name an ONNX graph")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=_providers())
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        reason = str(error).splitlines()[0][:300]
        raise GraphError(f"{path}: onnxruntime cannot load it ({reason}); export it again") from None
    # The file's bytes and the weights before they were packed for the kernels.
    give_back_freed()
    return session


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by its cgroups' CPU quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup.cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def tensor_specs(nodes: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    """The typed signature of a session's inputs or outputs."""
    return tuple(_tensor_spec(node) for node in nodes)


def _tensor_spec(node: ort.NodeArg) -> TensorSpec:
    if node.type not in DTYPES:
        raise GraphError(
            f"tensor '{node.name}' is of type {node.type}; supported: {', '.join(DTYPES.values())}"
        )
    shape = tuple(
        axis if isinstance(axis, int) else str(axis or f"axis{i}") for i, axis in enumerate(node.shape)
    )
    return TensorSpec(name=node.name, dtype=DTYPES[node.type], shape=shape)


def _providers() -> list[str]:
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [provider for provider in wanted if provider in ort.get_available_providers()]
