"""SmoothQuant (Xiao et al., arXiv:2211.10438): outliers of activations move into the weights. Pure numpy.

A tensor has one 8-bit range, so one input with large values costs all the others their resolution; a weight
has one range a row of outputs, and rows are tame. Dividing each input by s and multiplying its weights by s
changes nothing but who has to represent what.
"""

from collections.abc import Sequence

import numpy as np

from compress.quantize.blockwise import Floats


def migration_scales(peaks: Floats, weights: Sequence[Floats], alpha: float) -> Floats:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), the paper's equation 4, float32 [in].

    `peaks` are max|X_j|; `weights` [out, in] are those of all layers that read X. An input that is always
    zero, or that no weight reads, is left alone.
    """
    largest = np.max([np.abs(weight).max(0) for weight in weights], axis=0)
    alive = (peaks > 0) & (largest > 0)
    safe_peaks, safe_largest = np.where(alive, peaks, 1.0), np.where(alive, largest, 1.0)
    return np.asarray(safe_peaks**alpha / safe_largest ** (1 - alpha), np.float32)
