"""The gradient of the alphas in one step: cross entropy, zero-one and ablation loss put together (eq. 4, 8).

Clean mode gives every alpha one gradient, g_i + w_01 dL_01 + w_AB dL_AB, and touches neither the weights nor the
running statistics. Published mode reproduces, from the same single pass, what the published loop accumulates
(docs/published_code.md, D3 to D5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from . import losses
from .config import ExperimentConfig
from .contributions import ablated_losses, ablated_losses_and_gradient, random_gates
from .errors import UserError
from .supernet import CellNotes, Supernet, batch_statistics, frozen

Batch = tuple[Tensor, Tensor]

#: Name of the ablated networks' part of a step in a profiler's trace.
ABLATIONS = "ablations"


@dataclass(frozen=True)
class AlphaReport:
    """One step: gradients [groups, edges, operations], scalars by name, M [groups] (NaN where not measured) or None.

    `clamped` is 1 where eq. 7 would have divided by less than eps.
    """

    gradients: Tensor
    scalars: Mapping[str, Tensor]
    contributions: Tensor | None
    clamped: Tensor


class AlphaStep:
    """Computes alpha gradients; holds the few numbers that outlive a step."""

    def __init__(self, net: Supernet, config: ExperimentConfig) -> None:
        self.net = net
        self.config = config
        self.num_steps = 0
        #: The context that ablated networks are computed in: a profiler's mark.
        self.around_ablations: Callable[[], AbstractContextManager[object]] = partial(record_function, ABLATIONS)
        #: Factor of losses while they are differentiated in fp16.
        self.loss_scale = 1.0
        self.running_mean: Tensor | None = None
        #: Gradients that the published loop leaves in the alphas for the next step, [groups, edges, operations].
        self.residual: Tensor | None = None
        #: Gradients of the weights on the alpha split that the published loop adds to the weight step.
        self.leak: list[Tensor] | None = None
        # FairDARTS' zero-one loss is one mean over both groups; D-DARTS' is a mean per cell, shared alphas or not.
        one_mean = config.search.sharing == "normal_reduce"
        self._zero_one_weight = config.search.w_zero_one / (net.num_groups if one_mean else 1)

    def gradients(
        self, alphas: Tensor, batch: Batch, weight_batch: Batch, sgd: torch.optim.SGD, stream: torch.Generator
    ) -> AlphaReport:
        """Gradient of the total loss of every group.

        Args:
            alphas: [groups, edges, operations], detached.
            batch: images and labels of the alpha split.
            weight_batch: the batch of the coming weight step, for the second order.
            sgd: the weights' optimiser, for the second order.
            stream: the step's own random stream.
        """
        images, labels = batch
        published = self.config.alpha.grad_mode == "published"
        self.net.train()
        with batch_statistics(self.net):
            if published:
                return self._published(alphas, images, labels, stream)
            with frozen(self.net):
                report = self._clean(alphas, images, labels, stream)
            if self.config.search.order == "second":
                from .unrolled import unrolled_gradient

                g = unrolled_gradient(self.net, alphas, batch, weight_batch, sgd, self.config.search.relaxation)
                pull = self._zero_one_weight * losses.zero_one_gradient(alphas)
                report = AlphaReport(g + pull, report.scalars, report.contributions, report.clamped)
        return report

    def _clean(self, alphas: Tensor, images: Tensor, labels: Tensor, stream: torch.Generator) -> AlphaReport:
        alphas = alphas.clone().requires_grad_()
        gates = losses.gates(alphas, self.config.search.relaxation)
        ablate = self._ablates()
        notes = self._notes() if ablate and not self._differentiates() else None
        outputs = self.net.outputs(images, gates, notes)
        logits = self.net.logits(outputs[-1])
        loss = F.cross_entropy(logits, labels)
        (g,) = torch.autograd.grad(loss * self.loss_scale, alphas)
        g = g / self.loss_scale
        gradient = g
        if self._zero_one_weight:
            gradient = gradient + self._zero_one_weight * losses.zero_one_gradient(alphas.detach())
        marginal, clamped = None, torch.zeros((), device=alphas.device)
        ablation_loss = torch.zeros(len(alphas), device=alphas.device)
        if ablate:
            marginal, h, clamped = self._ablate(outputs, alphas, labels, loss.detach(), stream, notes)
            gradient = gradient + self.config.ablation.weight * self._ablation_gradient(marginal, g, h)
            ablation_loss = self._ablation_loss(marginal)
        scalars = self._scalars(alphas.detach(), logits, labels, loss, ablation_loss)
        self.num_steps += 1
        return AlphaReport(gradient, scalars, marginal, clamped)

    # --- ablation ---------------------------------------------------------------------------------------------------

    def _ablates(self) -> bool:
        ablation = self.config.ablation
        return ablation.loss != "none" and self.num_steps % ablation.every == 0 and self.net.num_groups > 1

    def _differentiates(self) -> bool:
        return losses.needs_ablated_gradient(self.config.ablation.loss)

    def _notes(self) -> list[CellNotes]:
        return [CellNotes() for _ in self.net.cells]

    def _players(self, stream: torch.Generator) -> list[int]:
        wanted = self.config.ablation.sample_cells
        if wanted is None:
            return list(range(self.net.num_groups))
        order = torch.randperm(self.net.num_groups, generator=stream, device=stream.device)
        return sorted(order[:wanted].tolist())

    def _ablate(
        self,
        outputs: Sequence[Tensor],
        alphas: Tensor,
        labels: Tensor,
        full: Tensor,
        stream: torch.Generator,
        notes: Sequence[CellNotes] | None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """M [groups] (NaN where not drawn), H or None, and whether the denominator was clamped."""
        ablation = self.config.ablation
        players = self._players(stream)
        draws = ablation.num_draws * len(players) if ablation.removal == "random" else 0
        gates = losses.gates(alphas, self.config.search.relaxation)
        noise = [random_gates(self.net, gates.detach(), stream) for _ in range(draws)]
        h = None
        with self.around_ablations():
            if self._differentiates():
                found, through = ablated_losses_and_gradient(
                    self.net, outputs, gates, labels, players, ablation.removal, noise, self.loss_scale
                )
                (h,) = torch.autograd.grad(gates, alphas, through)
                h = h * (self.net.num_groups / len(players))  # an unbiased estimate of the sum over all groups
            else:
                found = ablated_losses(
                    self.net, outputs, gates.detach(), labels, players, ablation.removal, noise, notes
                )
        marginal = full.new_full((self.net.num_groups,), float("nan"))
        of_players = losses.contributions(full, found)
        # An ablated network that overflows fp16 says nothing about its cell.
        marginal[players] = torch.where(of_players.isfinite(), of_players, float("nan"))
        mean = marginal.nanmean()
        if ablation.sample_cells is not None:
            before = mean if self.running_mean is None else self.running_mean
            # A step that overflowed, and measured nothing, leaves the mean as it was.
            moved = torch.where(before.isfinite(), 0.9 * before + 0.1 * mean, mean)
            self.running_mean = mean = torch.where(mean.isfinite(), moved, before)
        return marginal, h, (mean.abs() < ablation.eps).float()

    def _ablation_gradient(self, marginal: Tensor, g: Tensor, h: Tensor | None) -> Tensor:
        ablation = self.config.ablation
        return losses.ablation_gradient(ablation.loss, marginal, g, h, ablation.eps, self.running_mean)

    def _ablation_loss(self, marginal: Tensor) -> Tensor:
        return losses.ablation(marginal, self.config.ablation.loss, self.config.ablation.eps, self.running_mean)

    # --- the published loop -----------------------------------------------------------------------------------------

    def _published(self, alphas: Tensor, images: Tensor, labels: Tensor, stream: torch.Generator) -> AlphaReport:
        """Group i's Adam sees (i + 1) g(t) + (n - 1 - i) g(t-1) + g_train(t-1) + w_01 (1 + 1/n) dL_01.

        The published code steps and clears one cell's optimiser after each of n backward passes of the same loss, so
        that gradients pile up in the cells that are still to come, and are left over in those that went before.
        """
        alphas = alphas.clone().requires_grad_()
        gates = losses.gates(alphas, self.config.search.relaxation)
        notes = self._notes() if self._ablates() else None
        outputs = self.net.outputs(images, gates, notes)
        logits = self.net.logits(outputs[-1])
        loss = F.cross_entropy(logits, labels)
        weights = list(self.net.parameters())
        g, *leaked = torch.autograd.grad(loss, [alphas, *weights])
        n = len(alphas)
        position = torch.arange(n, device=g.device)[:, None, None]
        pull = self._zero_one_weight * losses.zero_one_gradient(alphas.detach())
        gradient = (position + 1) * g + pull
        if self.residual is not None:
            gradient = gradient + self.residual
        self.residual = (n - 1 - position) * g
        torch._foreach_mul_(leaked, n)
        self.leak = leaked
        marginal, clamped = None, torch.zeros((), device=g.device)
        ablation_loss = torch.zeros(n, device=g.device)
        if self._ablates():
            marginal, _, clamped = self._ablate(outputs, alphas, labels, loss.detach(), stream, notes)
            ablation_loss = self._ablation_loss(marginal)
        scalars = self._scalars(alphas.detach(), logits, labels, loss, ablation_loss)
        self.num_steps += 1
        return AlphaReport(gradient, scalars, marginal, clamped)

    def leak_into_weights(self) -> None:
        """Add the alpha split's gradients, once per group, to those of the weights (D4)."""
        assert self.leak is not None
        for weight, leaked in zip(self.net.parameters(), self.leak, strict=True):
            assert weight.grad is not None
            weight.grad += leaked
        self.leak = None

    def leak_from_weight_step(self, alphas: Tensor) -> None:
        """Keep the weight step's gradient of the alphas, zero-one term included, for the next alpha step (D5)."""
        assert self.residual is not None and alphas.grad is not None
        pull = self._zero_one_weight / len(alphas) * losses.zero_one_gradient(alphas.detach())
        self.residual = self.residual + alphas.grad + pull

    # --- records and state ------------------------------------------------------------------------------------------

    def _scalars(
        self, alphas: Tensor, logits: Tensor, labels: Tensor, loss: Tensor, ablation_loss: Tensor
    ) -> dict[str, Tensor]:
        zero_one = losses.zero_one(alphas)
        whole = losses.total(
            loss.detach(), zero_one, ablation_loss, self.config.search.w_zero_one, self.config.ablation.weight
        )
        return {
            "loss": loss.detach(),
            "accuracy": (logits.detach().argmax(1) == labels).float().mean(),
            "zero_one": zero_one.mean(),
            "total": whole.mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"num_steps": self.num_steps, "running_mean": self.running_mean, "residual": self.residual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if set(state) != set(self.state_dict()):
            raise UserError(f"unexpected alpha-step state: {', '.join(sorted(state))}")
        device = next(self.net.parameters()).device
        self.num_steps = state["num_steps"]
        self.running_mean, self.residual = (
            None if stored is None else stored.to(device) for stored in (state["running_mean"], state["residual"])
        )
