"""The ablation losses: terms of the loss that follow from what cells contribute (D-DARTS eq. 7; docs/ablation.md).

Notation: M_i is the marginal contribution of group i of cells, which is negative when the group helps; m is the mean of
all M_i; n is the number of groups; r_i = M_i / m; D = max(|m|, eps); g_i = d L_CE(C) / d alpha_i; H_i is the sum over
j != i of d L_CE(C without C_j) / d alpha_i. A group that was not measured counts as average, so that its loss is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .parts import Ablation, Contributions

if TYPE_CHECKING:
    from torch import Tensor


def _safe(mean: Tensor) -> Tensor:
    """The mean, to divide by; 1 if the mean is 0."""
    return mean.new_ones(()).where(mean == 0, mean)


def _of_groups(values: Tensor, like: Tensor) -> Tensor:
    """One value for each group, [groups], in a shape that multiplies a tensor whose first axis is the groups."""
    return values.view(-1, *[1] * (like.dim() - 1))


class Monitor(Ablation):
    """Eq. 7 as printed, but without a gradient. Up to the sign, the published code computes this."""

    name = "ablation-monitor"
    summary = "(M - m) / m, measured and recorded only; its gradient is 0 (D-DARTS, published code)"

    def value(self, found: Contributions) -> Tensor:
        """(M_i - m) / m; 0 where m = 0."""
        marginal, mean = found.filled, found.mean
        return marginal.new_zeros(()).where(mean == 0, (marginal - mean) / _safe(mean))

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """0 for every parameter."""
        return g.new_zeros(g.shape)


class Paper(Monitor):
    """Eq. 7 as printed, with the whole derivative."""

    name = "ablation-paper"
    summary = "(M - m) / m with its whole derivative (D-DARTS eq. 7); m may be near 0"
    differentiates = True

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """((1 - r_i) g_i + r_i / n H_i) / m; 0 where m = 0."""
        assert h is not None
        mean = found.mean
        ratio = _of_groups(found.filled / _safe(mean), g)
        return g.new_zeros(()).where(mean == 0, ((1 - ratio) * g + ratio / len(g) * h) / _safe(mean))


class Relative(Ablation):
    """Eq. 7 with a denominator that is never 0, and the whole derivative."""

    name = "ablation-relative"
    summary = "(M - m) / sqrt(m^2 + eps^2) with its whole derivative (D-DARTS eq. 7, made smooth)"
    differentiates = True

    def value(self, found: Contributions) -> Tensor:
        """(M_i - m) / sqrt(m^2 + eps^2)."""
        return (found.filled - found.mean) / (found.mean.square() + self.ablation.eps**2).sqrt()

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """The whole derivative, in which the denominator is differentiated too."""
        assert h is not None
        n, mean = len(g), found.mean
        root = (mean.square() + self.ablation.eps**2).sqrt()
        own = _of_groups((found.filled - mean) * mean / root.square(), g)
        return (h / n - own * (g - h / n)) / root


class Centered(Ablation):
    """Eq. 7 with a denominator that is bounded and held constant, so that g_i cancels."""

    name = "ablation-centered"
    summary = "(M - m) / max(|m|, eps), the denominator held constant (D-DARTS eq. 7, made stable)"
    differentiates = True

    def _denominator(self, found: Contributions) -> Tensor:
        return found.mean.abs().clamp_min(self.ablation.eps)

    def value(self, found: Contributions) -> Tensor:
        """(M_i - m) / D, whose sign does not turn with that of m."""
        return (found.filled - found.mean) / self._denominator(found)

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """H_i / (n D)."""
        assert h is not None
        return h / (len(g) * self._denominator(found))


class Rescale(Centered):
    """Experimental: the loss of a group scales the gradient of its own parameters."""

    name = "ablation-rescale"
    summary = "as ablation-centered; cells that help less than the mean follow their gradient further (experimental)"
    differentiates = False
    compares = True

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """tanh(L_AB^i) g_i, so that the total is (1 + w_AB tanh L_AB^i) g_i."""
        return _of_groups(self.value(found).tanh(), g) * g


class Credit(Centered):
    """Experimental: what a group contributes, of either sign, scales the gradient of its own parameters."""

    name = "ablation-credit"
    summary = "as ablation-centered; cells that matter more follow their gradient further (experimental)"
    differentiates = False
    compares = True

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """(|M_i| / max(mean |M|, eps) - 1) g_i."""
        sizes = found.marginal.abs()
        sizes = sizes.where(~sizes.isnan(), sizes.nanmean())
        return _of_groups(sizes / sizes.mean().clamp_min(self.ablation.eps) - 1, g) * g
