"""What an adapter makes of a weight: pure tensor arithmetic in float32, no model and no data.

Sources: Hu et al., LoRA, 2021, arXiv:2106.09685, section 4.1 (h = W x + s B A x); Liu et al., DoRA, 2024,
arXiv:2402.09353, equation 5 (magnitude times direction, norms taken of each output's row).
"""

from torch import Tensor


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """W + s B A: `weight` [out, in], `a` [rank, in], `b` [out, rank]; float32 whatever they come in."""
    result: Tensor = weight.float() + scaling * (b.float() @ a.float())
    return result


def merged_dora(weight: Tensor, a: Tensor, b: Tensor, scaling: float, magnitude: Tensor) -> Tensor:
    """m (W + s B A) / ||W + s B A||, the norm over each row; `magnitude` m [out], the rest as above."""
    directed = merged_weight(weight, a, b, scaling)
    result: Tensor = (magnitude.float() / directed.norm(dim=1))[:, None] * directed
    return result
