"""What a training computes in: float32, or half precision under autocast, with a scaled loss for float16.

float16 has no exponents for small gradients, so the loss is scaled up before the backward pass and a step
whose gradients overflow is left out (Micikevicius et al., Mixed precision training, arXiv:1710.03740, section
3.2); bfloat16 has float32's exponents and needs none of it. Weights and optimizer state stay in float32.
"""

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

# A gradient that still overflows with the loss as it is, is one that diverged.
SMALLEST_SCALE = 1.0


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where that is fast, else float32."""
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context to compute a loss in."""
    dtype = dtype_of(precision, device)
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype if enabled else torch.bfloat16, enabled=enabled)


def loss_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Scales for float16, and does nothing for the others."""
    return torch.amp.GradScaler(device.type, enabled=dtype_of(precision, device) == torch.float16)


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there: AMX or AVX512-BF16 on a CPU, compute 8.0 on a GPU."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
