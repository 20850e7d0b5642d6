"""AWQ (Lin et al., arXiv:2306.00978): weights of strong inputs are scaled up before they are rounded.

Pure numpy. With s > 0 per input, (X / s)(W s)^T is X W^T; rounding W s instead of W makes the relative error
of the columns with a large s smaller. The paper's search space: s = (mean magnitude of the input)^alpha, one
alpha a group of layers that read the same tensor, by the squared error of their outputs. Here the magnitude
is the root mean square, which the products that measure that error hold already, so nothing else is kept.
"""

from collections.abc import Sequence

import numpy as np

from compress.quantize.blockwise import Floats, quantize_blocks
from compress.quantize.gptq import Doubles, output_error

# The paper's grid. 0 is no scaling, so the result is never worse than rounding on the data searched with.
ALPHAS = np.linspace(0, 1, 20, endpoint=False)


def search_scales(weights: Sequence[Floats], hessian: Doubles, bits: int, group_size: int) -> Floats:
    """Scales float32 [in] for layers `weights` [out, in] that read one tensor X, given `hessian` X^T X.

    They are what the weights are multiplied by, and X divided by; ones where no scaling helps.
    """
    tried = [candidate_scales(hessian, float(alpha)) for alpha in ALPHAS]
    errors = [sum(scaled_error(w, scales, hessian, bits, group_size) for w in weights) for scales in tried]
    return tried[int(np.argmin(errors))]


def candidate_scales(hessian: Doubles, alpha: float) -> Floats:
    """(root mean square of each input)^alpha, centred on 1: the paper's normalisation by sqrt(max min)."""
    strength = np.sqrt(np.diag(hessian))
    strength[strength <= 0] = strength[strength > 0].min(initial=1.0)  # an input that is always zero
    scales = strength**alpha
    return np.asarray(scales / np.sqrt(scales.max() * scales.min()), np.float32)


def scaled_error(weight: Floats, scales: Floats, hessian: Doubles, bits: int, group_size: int) -> float:
    """Squared error of the layer's outputs when `weight` [out, in] is rounded after scaling."""
    rounded = quantize_blocks(weight * scales, bits, group_size).dequantize()
    return output_error(rounded / scales - weight, hessian)
