"""Low-rank factors of a weight: pure tensor arithmetic in float64, no model and no data.

Sources: Eckart and Young, The approximation of one matrix by another of lower rank, 1936 (the truncated
singular value decomposition is the best of its rank); Yuan et al., ASVD, 2023, arXiv:2312.05821 (inputs
scaled by their activations); Wang et al., SVD-LLM, 2024, arXiv:2403.07378 (inputs whitened).
All three truncate `weight @ scaling` and undo `scaling`, square [in, in]; they differ in what it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Added to the diagonal of X^T X, as a share of its mean: inputs that never vary would make it singular.
DAMPING = 1e-6
# How much an input's scale counts; ASVD's authors found half to work best.
SCALE_POWER = 0.5


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The singular value decomposition u s v^T of `weight @ scaling`, float64, singular values descending."""

    u: Tensor
    s: Tensor
    v: Tensor
    scaling: Tensor | None

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """`up` [out, rank] and `down` [rank, in], float32, whose product stands for the weight."""
        root = self.s[:rank].sqrt()
        up, down = self.u[:, :rank] * root, root[:, None] * self.v[:, :rank].T
        if self.scaling is not None:
            down = torch.linalg.solve_triangular(self.scaling, down, upper=False, left=False)
        return up.float(), down.float()

    def error(self, rank: int) -> float:
        """The relative error of that rank, sqrt(sum of the dropped s^2 / sum of all s^2).

        It is the weight's own error where nothing is scaled, and the layer's output error on the calibration
        data where it is whitened.
        """
        squares = self.s.square()
        return float((squares[rank:].sum() / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)).sqrt())


def decompose(weight: Tensor, scaling: Tensor | None = None) -> Spectrum:
    """The spectrum of `weight` [out, in] after `scaling` [in, in], lower triangular."""
    scaled = weight.double() if scaling is None else weight.double() @ scaling
    u, s, vh = torch.linalg.svd(scaled, full_matrices=False)
    return Spectrum(u, s, vh.T, scaling)


def activation_scaling(gram: Tensor) -> Tensor:
    """diag(norm of each input)^(1/2), from `gram` X^T X [in, in].

    ASVD takes the mean of |x| or its maximum; the norm lies between, and is what `gram` holds.
    """
    norms = gram.double().diagonal().sqrt()
    floor = norms.mean() * DAMPING
    return torch.diag(norms.clamp(min=float(floor)) ** SCALE_POWER)


def whitening(gram: Tensor) -> Tensor:
    """S with S S^T = X^T X: ||(W - W') X^T|| = ||(W - W') S||, so truncating W S is best for the output.

    `gram` is X^T X float64 [in, in] of the layer's inputs X [rows, in] (SVD-LLM).
    """
    double = gram.double()
    damping = DAMPING * double.diagonal().mean()
    factor: Tensor = torch.linalg.cholesky(double + damping * torch.eye(len(double), dtype=torch.float64))
    return factor


def rank_for_energy(spectrum: Spectrum, energy: float) -> int:
    """The smallest rank whose squared singular values sum to the share `energy` of all."""
    squares = spectrum.s.square().cumsum(0)
    return min(int((squares < energy * squares[-1]).sum()) + 1, len(squares))


def rank_for_ratio(out_features: int, in_features: int, ratio: float) -> int:
    """The largest rank, but at least 1, that takes at most the share `ratio` of the layer's weights."""
    return max(1, int(ratio * out_features * in_features / (out_features + in_features)))


def saves(out_features: int, in_features: int, rank: int) -> bool:
    """Whether two thin layers of that rank have fewer weights than the one."""
    return rank * (out_features + in_features) < out_features * in_features
