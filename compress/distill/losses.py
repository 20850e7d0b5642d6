"""Distillation losses: pure functions of logits and hidden states, no model and no data.

Sources: Hinton et al., Distilling the knowledge in a neural network, 2015, arXiv:1503.02531 (soft targets);
Gu et al., MiniLLM, 2023, arXiv:2306.08543 (reverse KL for language models); Jiao et al., TinyBERT, 2019,
arXiv:1909.10351 (hidden states, and which layer learns from which).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.finetune import Divergence
from models.datasets.dataset import IGNORED


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    temperature: float,
    divergence: Divergence = "forward",
) -> Tensor:
    """alpha CE + (1 - alpha) T^2 KL, both averaged over the positions that are scored.

    Logits [..., classes], targets int64 [...]: positions with the target IGNORED, such as padding, count in
    neither part.
    """
    scored = targets != IGNORED
    ours, theirs = student[scored], teacher[scored]
    hard = F.cross_entropy(_single(ours), targets[scored])
    return alpha * hard + (1 - alpha) * soft_target_loss(ours, theirs, temperature, divergence)


def soft_target_loss(
    student: Tensor, teacher: Tensor, temperature: float, divergence: Divergence = "forward"
) -> Tensor:
    """T^2 KL of tempered softmaxes, averaged over rows; logits [..., classes].

    Forward is KL(teacher || student), reverse KL(student || teacher), symmetric the mean of the two. The
    factor T^2 keeps the gradient's size independent of the temperature (section 2 of Hinton et al.).
    """
    ours = F.log_softmax(_single(student).flatten(0, -2) / temperature, -1)
    theirs = F.log_softmax(_single(teacher).flatten(0, -2) / temperature, -1)
    return _divergence(ours, theirs, divergence) * temperature**2


def top_k_loss(student: Tensor, tokens: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) over the teacher's k likeliest classes and one of all others together.

    Logits [rows, classes]; tokens int64 and scores float [rows, k], log-probabilities at `temperature`. It is
    the whole divergence where k is all classes, and less than that otherwise (data processing inequality).
    """
    tempered = _single(student) / temperature
    whole = tempered.logsumexp(-1, keepdim=True)
    ours = tempered.gather(-1, tokens) - whole
    theirs = scores.to(ours.dtype)
    listed = (theirs.exp() * (theirs - ours)).sum(-1)
    rest = (1 - theirs.exp().sum(-1)).clamp(min=0)
    our_rest = tempered.scatter(-1, tokens, -torch.inf).logsumexp(-1) - whole[..., 0]
    # With every class listed there are no others: their share is rounding, and the student's none.
    other = rest * (rest.clamp(min=1e-12).log() - our_rest.clamp(min=-30))
    return (listed + other).mean() * temperature**2


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of hidden states [batch, ..., width], in units of the teacher's mean square.

    The unit makes one weight mean the same for every layer and model: the states of a residual stream grow
    with depth. `mask` [batch, sequence] says which positions count.
    """
    ours, theirs = _single(student), _single(teacher)
    if mask is not None:
        ours, theirs = ours[mask.bool()], theirs[mask.bool()]
    return F.mse_loss(ours, theirs) / theirs.square().mean().clamp(min=torch.finfo(theirs.dtype).tiny)


def matched_layers(student: int, teacher: int) -> tuple[int, ...]:
    """For each of `student` layers the teacher's layer it learns from, the last from the last.

    The uniform mapping of TinyBERT, for any two depths.
    """
    return tuple(-(-(index + 1) * teacher // student) - 1 for index in range(student))


def _divergence(ours: Tensor, theirs: Tensor, divergence: Divergence) -> Tensor:
    """Of log-probabilities [rows, classes], averaged over rows."""
    if divergence == "symmetric":
        return (_kl(theirs, ours) + _kl(ours, theirs)) / 2
    return _kl(theirs, ours) if divergence == "forward" else _kl(ours, theirs)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of log-probabilities [rows, classes], averaged over rows."""
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def _single(values: Tensor) -> Tensor:
    """At least float32: autocast gives bfloat16, whose sums over a vocabulary are too coarse."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
