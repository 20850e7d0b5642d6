"""The machine that a measurement was made on: what decides how fast quantized kernels are."""

import platform
from pathlib import Path

from runtime.session import available_cores


def machine() -> dict[str, str | int]:
    """The machine that a measurement was made on."""
    return {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "isa": " ".join(_isa()),
        "system": platform.system(),
    }


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _isa() -> list[str]:
    """The instruction sets that decide how fast quantized kernels are."""
    flags = set(_cpuinfo("flags").split())
    known = (
        "avx2",
        "avx512f",
        "avx_vnni",
        "avx512_vnni",
        "avx512_bf16",
        "amx_int8",
        "amx_bf16",
        "asimddp",
        "i8mm",
    )
    return [flag for flag in known if flag in flags]


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
