"""Losses of two networks that learn from each other (C-DARTS: Yu et al. 2022, eq. 4 to 6). Pure functions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), the mean over images and classes.

    The published code takes the mean over all elements, which is the divergence over the number of classes; no side is
    detached.

    Args:
        teacher: logits, [batch, classes].
        student: logits, [batch, classes].
        temperature: T.
    """
    of_teacher, of_student = ((logits / temperature).log_softmax(1) for logits in (teacher, student))
    return (of_teacher.exp() * (of_teacher - of_student)).mean()


def joint(searched: Tensor, derived: Tensor, labels: Tensor, weight: float, temperature: float) -> Tensor:
    """(CE(searched) + CE(derived)) / a + a T^2 KL(derived || searched), the joint loss of C-DARTS.

    Args:
        searched: logits of the supernet, [batch, classes].
        derived: logits of the network of its genotype.
        labels: [batch].
        weight: a.
        temperature: T.
    """
    entropies = F.cross_entropy(searched, labels) + F.cross_entropy(derived, labels)
    return entropies / weight + weight * temperature**2 * divergence(derived, searched, temperature)
