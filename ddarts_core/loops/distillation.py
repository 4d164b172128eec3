"""Losses of two networks that learn from each other (C-DARTS: Yu et al. 2022, eq. 4 to 6), as pure functions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)), as the mean over images and classes.

    As in the published code, the mean is taken over all elements: it is the divergence divided by the number of
    classes. Gradients flow into both networks: neither side is detached.

    Args:
        teacher: the logits of the teacher, [batch, classes].
        student: the logits of the student, [batch, classes].
        temperature: T.
    """
    of_teacher, of_student = ((logits / temperature).log_softmax(1) for logits in (teacher, student))
    return (of_teacher.exp() * (of_teacher - of_student)).mean()


def joint(searched: Tensor, derived: Tensor, labels: Tensor, weight: float, temperature: float) -> Tensor:
    """Return (CE(searched) + CE(derived)) / a + a T^2 KL(derived || searched), the joint loss of C-DARTS.

    Args:
        searched: the logits of the supernet, [batch, classes].
        derived: the logits of the network of its genotype, [batch, classes].
        labels: the class of each image, [batch].
        weight: a.
        temperature: T.
    """
    entropies = F.cross_entropy(searched, labels) + F.cross_entropy(derived, labels)
    return entropies / weight + weight * temperature**2 * divergence(derived, searched, temperature)
