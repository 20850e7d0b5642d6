"""Distillation losses: pure functions of logits, no model and no data.

Sources: Hinton et al., Distilling the knowledge in a neural network, 2015, arXiv:1503.02531.
"""

import torch.nn.functional as F
from torch import Tensor


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of tempered softmaxes, averaged over rows; logits [..., classes].

    The factor T^2 keeps the gradient's size independent of the temperature (section 2 of the paper).
    """
    log_student = F.log_softmax(student.flatten(0, -2) / temperature, -1)
    log_teacher = F.log_softmax(teacher.flatten(0, -2) / temperature, -1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2
