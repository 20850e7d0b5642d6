"""GPTQ (Frantar et al., arXiv:2210.17323): round a weight column by column, each error made good by the rest.

Pure numpy. With H = X^T X over a layer's inputs, a change D [out, in] of the weight makes the squared output
error tr(D H D^T). Once a column is rounded, the best change of those still free is known in closed form from
H's inverse; its Cholesky factor gives every column's in one go. The trade-off: calibration data and a matrix
[in, in] a layer, for an error that round-to-nearest cannot reach where inputs are correlated.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.quantize.blockwise import Blocks, Bytes, Floats, quantize_blocks

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def quantize_gptq(
    weight: Floats,
    hessian: Doubles,
    bits: int,
    group_size: int,
    *,
    damping: float = 0.01,
    act_order: bool = False,
) -> Blocks:
    """Quantize `weight` float32 [out, in] to `bits` (4 or 8), given `hessian` float64 [in, in] of its inputs.

    `damping` is added to H's diagonal, as a share of its mean (the paper's 1%). A group's scales are found
    when its first column is reached, on the weights as the columns before have left them. With `act_order`,
    columns go by decreasing diagonal of H instead, and scales are found on the original weights: the kernels
    want neighbours in one group.
    """
    work, grid = weight.astype(np.float64), _Grid.of(weight, bits, group_size)
    order = np.argsort(-np.diag(hessian), kind="stable") if act_order else np.arange(weight.shape[1])
    # The error of the columns still free, by row: U[i, i:] / U[i, i].
    upper = inverse_factor(hessian[np.ix_(order, order)], damping)
    for start in range(0, len(order), group_size):
        columns, rest = order[start : start + group_size], order[start + group_size :]
        if not act_order:
            grid.fit(start // group_size, work[:, columns].astype(np.float32))
        within = upper[start : start + len(columns), start:]
        errors = _round_columns(work, columns, within, grid)
        # The paper's lazy batch: the columns past this group are changed by it once, in one product.
        work[:, rest] -= errors @ within[:, len(columns) :]
    return grid.blocks(weight.shape)


def inverse_factor(hessian: Doubles, damping: float) -> Doubles:
    """Upper triangular U with U^T U the inverse of the damped `hessian` [in, in].

    An input that was never other than zero gets a one on the diagonal: nothing depends on its weight.
    """
    damped = hessian.copy()
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = 1.0
    np.fill_diagonal(damped, diagonal + damping * diagonal.mean())
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, np.float64)


def output_error(change: Floats, hessian: Doubles) -> float:
    """tr(D H D^T): the squared error that a change [out, in] of the weight makes over the inputs behind H."""
    change64 = change.astype(np.float64)
    return float(((change64 @ hessian) * change64).sum())


def _round_columns(work: Doubles, columns: Integers, upper: Doubles, grid: "_Grid") -> Doubles:
    """Round `columns` of `work` in order, each changing those after it; scaled errors [out, columns]."""
    errors = np.empty((len(work), len(columns)))
    for index, column in enumerate(columns):
        rounded = grid.round(int(column), work[:, column])
        errors[:, index] = (work[:, column] - rounded) / upper[index, index]
        later = columns[index + 1 :]
        work[:, later] -= np.outer(errors[:, index], upper[index, index + 1 : len(columns)])
    return errors


@dataclass(slots=True)
class _Grid:
    """What is stored: values [out, groups, group_size], scales and zero points [out, groups]."""

    values: Bytes
    scales: Floats
    zero_points: Bytes
    bits: int

    @classmethod
    def of(cls, weight: Floats, bits: int, group_size: int) -> "_Grid":
        """The grid of the original weights: padding is at its zero points already."""
        blocks = quantize_blocks(weight, bits, group_size)
        return cls(blocks.values.copy(), blocks.scales.copy(), blocks.zero_points.copy(), bits)

    def fit(self, group: int, columns: Floats) -> None:
        """Find one group's scales anew, on `columns` [out, group_size or fewer]."""
        blocks = quantize_blocks(columns, self.bits, self.values.shape[2])
        self.values[:, group] = blocks.values[:, 0]
        self.scales[:, group] = blocks.scales[:, 0]
        self.zero_points[:, group] = blocks.zero_points[:, 0]

    def round(self, column: int, weights: Doubles) -> Doubles:
        """Store one column of `weights` [out] and give what it became."""
        group, place = divmod(column, self.values.shape[2])
        scales, zero_points = self.scales[:, group].astype(np.float64), self.zero_points[:, group]
        values = np.clip(np.round(weights / scales) + zero_points, 0, 2**self.bits - 1)
        self.values[:, group, place] = values
        return np.asarray((values - zero_points) * scales)

    def blocks(self, shape: tuple[int, ...]) -> Blocks:
        """As the kernels' packing takes it, for a weight of `shape` [out, in]."""
        return Blocks(self.values, self.scales, self.zero_points, self.bits, (shape[0], shape[1]))
