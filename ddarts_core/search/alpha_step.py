"""The gradient of the alphas in one step: cross entropy, zero-one and ablation loss put together (eq. 4, 8).

The clean mode gives every alpha one gradient, g_i + w_01 dL_01 + w_AB dL_AB, and changes neither the weights nor the
running statistics. The published mode reproduces, from the same single pass, the gradients that the published loop
accumulates (docs/published_code.md, D3 to D5).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from ..ground.errors import Advice, UserError
from ..loops import losses
from ..methods import ablation_loss
from ..methods.common import ZeroOne
from ..methods.parts import Contributions, Kept, Parameters, Progress
from ..settings.config import ExperimentConfig
from ..supernets.contributions import ablated_losses, ablated_losses_and_gradient, random_gates
from ..supernets.searched import SearchedNetwork
from ..supernets.supernet import CellNotes, batch_statistics, frozen, of_cells
from ..tensors.products import vector_jacobian
from .architecture import Architecture, leaves_of
from .companion import Companion
from .freezing import Watch

if TYPE_CHECKING:
    from .unrolled import Bilevel

Batch = tuple[Tensor, Tensor]

#: Images on which the finite difference of the second order is measured: double backward takes much memory.
FEW = 16

#: Relative error of that difference from which on a search warns.
LARGE_ERROR = 0.5

#: Name of the ablated networks' part of a step in a profiler's trace.
ABLATIONS = "ablations"


@dataclass(frozen=True)
class AlphaReport:
    """The results of one step: gradients by parameter, scalars by name, and M [groups] (NaN if not measured) or None.

    `clamped` is 1 where eq. 7 would have divided by less than eps.
    """

    gradients: Mapping[str, Tensor]
    scalars: Mapping[str, Tensor]
    contributions: Tensor | None
    clamped: Tensor


@dataclass(frozen=True)
class _Pass:
    """The full pass of a step: its leaves, gates, outputs of the cells, logits, loss, and gradients.

    `g` is the gradient of the loss by the parameters, by name. `by_others` is its gradient by weights, in units of the
    loss's scale. `gates` may be differentiated once more if the step ablates. `notes` are what the cells noted down for
    ablated networks that are not differentiated.
    """

    leaves: dict[str, Tensor]
    gates: Tensor
    outputs: Sequence[Tensor]
    logits: Tensor
    loss: Tensor
    labels: Tensor
    g: dict[str, Tensor]
    by_others: list[Tensor]
    notes: list[CellNotes] | None


@dataclass(frozen=True)
class _Measured:
    """M and its mean, H by parameter if wanted, and whether the denominator was clamped."""

    found: Contributions
    h: dict[str, Tensor]
    clamped: Tensor


class AlphaStep:
    """Computes the gradients of the alphas, and holds the few numbers that outlive a step."""

    def __init__(self, net: SearchedNetwork, config: ExperimentConfig, kept: Kept | None = None) -> None:
        self.net = net
        self.config = config
        self.num_steps = 0
        #: The context that ablated networks are computed in: a profiler's mark.
        self.around_ablations: Callable[[], AbstractContextManager[object]] = partial(record_function, ABLATIONS)
        #: Factor of losses while they are differentiated in fp16.
        self.loss_scale = 1.0
        self.running_mean: Tensor | None = None
        #: Gradients that the published loop leaves in the alphas for the next step, by parameter.
        self.residual: dict[str, Tensor] | None = None
        #: Gradients of the weights on the alpha split that the published loop adds to the weight step.
        self.leak: list[Tensor] | None = None
        self.architecture = Architecture(config.search, net.num_groups, kept)
        self.architecture.fit(net)
        #: The term that is made of contributions of cells; the others are those of the architecture.
        self.ablation = ablation_loss(config.ablation)
        #: What wants to see the gradients of the operations' weights on the alphas' split.
        self.watch: Watch | None = None
        #: A network that takes a step with the alphas, by the same loss.
        self.companion: Companion | None = None

    def gradients(
        self,
        parameters: Parameters,
        batch: Batch,
        weight_batch: Batch,
        sgd: torch.optim.SGD,
        stream: torch.Generator,
        progress: Progress = Progress(),  # noqa: B008  # frozen
    ) -> AlphaReport:
        """Gradient of the total loss of every group.

        Args:
            parameters: the parameters of the architecture by name, detached.
            batch: images and labels of the alpha split.
            weight_batch: the batch of the coming weight step, for the second order.
            sgd: the weights' optimiser, for the second order.
            stream: the step's own random stream.
            progress: where the search is.
        """
        self.net.train()
        with batch_statistics(self.net):
            if self.config.alpha.grad_mode == "published":
                return self._published(parameters, batch, stream, progress)
            with frozen(self.net, but=() if self.watch is None else self.watch.weights):
                report = self._clean(parameters, batch, stream, progress)
            if self.config.search.order == "second":
                report = self._second_order(report, parameters, batch, weight_batch, sgd, progress)
        return report

    def _second_order(
        self,
        report: AlphaReport,
        parameters: Parameters,
        batch: Batch,
        weight_batch: Batch,
        sgd: torch.optim.SGD,
        progress: Progress,
    ) -> AlphaReport:
        """The report with the unrolled gradient; the first one also says how far its product is from the exact one."""
        from .unrolled import Bilevel

        hessian = self.config.search.hessian
        gates_of = partial(self.architecture.gates, progress=progress)
        step = Bilevel(self.net, parameters, batch, weight_batch, sgd, gates_of)
        error = self._hessian_error(step) if self.num_steps == 1 and hessian == "finite" else {}
        gradients = _sum(step.gradient(hessian), self.architecture.pull(parameters, progress))
        return AlphaReport(gradients, {**report.scalars, **error}, report.contributions, report.clamped)

    def _hessian_error(self, step: Bilevel) -> dict[str, Tensor]:
        error = step.first(FEW).product_error()
        if not error < LARGE_ERROR:
            warnings.warn(
                f"search.order second: the finite difference misses the second-order term by {100 * error:.0f} % at "
                "the first step (over 100 % the first order is nearer): set search.hessian=exact",
                Advice,
                stacklevel=2,
            )
        return {"hessian_error": torch.tensor(error, device=step.batch[0].device)}

    def _pass(
        self, parameters: Parameters, batch: Batch, others: Sequence[Tensor], progress: Progress, scale: float = 1.0
    ) -> _Pass:
        """The full pass of a step, differentiated by the parameters and by weights.

        Gates are computed once: the loss is differentiated by them, and their gradient is pulled through to the
        parameters, as that of the ablated networks is later.

        Args:
            parameters: the parameters of the architecture by name, detached.
            batch: images and labels.
            others: weights by which the loss is differentiated too.
            progress: where the search is.
            scale: factor of the loss while it is differentiated; the gradient by `others` keeps it.
        """
        images, labels = batch
        leaves = leaves_of(parameters)
        gates = self.architecture.gates(leaves, progress)
        ablates = self._ablates()
        notes = [CellNotes() for _ in of_cells(self.net).cells] if ablates and not self._differentiates() else None
        cut = gates.detach().requires_grad_()
        outputs = self.net.outputs(images, cut, notes)
        logits = self.net.answer(outputs)
        loss = F.cross_entropy(logits, labels) if self.companion is None else self.companion.loss(logits, batch)
        by_gates, *by_others = torch.autograd.grad(loss * scale, [cut, *others], allow_unused=bool(others))
        back = vector_jacobian(gates, list(leaves.values()), by_gates, retain_graph=ablates)
        g = {name: gradient / scale for name, gradient in zip(leaves, back, strict=True)}
        return _Pass(leaves, gates, outputs, logits, loss.detach(), labels, g, by_others, notes)

    def _clean(self, parameters: Parameters, batch: Batch, stream: torch.Generator, progress: Progress) -> AlphaReport:
        watched = [] if self.watch is None else self.watch.weights
        beside = [] if self.companion is None else self.companion.weights
        full = self._pass(parameters, batch, [*watched, *beside], progress, self.loss_scale)
        if self.watch is not None:
            self.watch.of_alphas = full.by_others[: len(watched)]
        if self.companion is not None:
            self.companion.step(full.by_others[len(watched) :])
        gradients = _sum(full.g, self.architecture.pull(parameters, progress))
        measured = self._ablate(full, stream) if self._ablates() else None
        if self.ablation is not None and measured is not None:
            weight = self.architecture.weight(self.config.ablation, progress)
            for name in gradients:
                term = self.ablation.gradient(measured.found, full.g[name], measured.h.get(name))
                gradients[name] = gradients[name] + weight * term
        return self._report(gradients, parameters, full, measured, progress)

    def _report(
        self,
        gradients: Mapping[str, Tensor],
        parameters: Parameters,
        full: _Pass,
        measured: _Measured | None,
        progress: Progress,
    ) -> AlphaReport:
        """The report that a step ends with."""
        if self.ablation is None or measured is None:
            marginal, clamped = None, torch.zeros((), device=full.labels.device)
            ablation_loss = torch.zeros(self.net.num_groups, device=full.labels.device)
        else:
            marginal, clamped = measured.found.marginal, measured.clamped
            ablation_loss = self.ablation.value(measured.found)
        scalars = self._scalars(parameters, full.logits, full.labels, full.loss, ablation_loss, progress)
        self.num_steps += 1
        return AlphaReport(gradients, scalars, marginal, clamped)

    # --- ablation ---------------------------------------------------------------------------------------------------

    def _ablates(self) -> bool:
        now = self.num_steps % self.config.ablation.every == 0
        return self.ablation is not None and now and self.net.num_groups > 1

    def _differentiates(self) -> bool:
        return self.ablation is not None and self.ablation.differentiates

    def _players(self, stream: torch.Generator) -> list[int]:
        wanted = self.config.ablation.sample_cells
        if wanted is None:
            return list(range(self.net.num_groups))
        order = torch.randperm(self.net.num_groups, generator=stream, device=stream.device)
        return sorted(order[:wanted].tolist())

    def _ablate(self, full: _Pass, stream: torch.Generator) -> _Measured:
        """What the network loses with each of its cells."""
        ablation = self.config.ablation
        players = self._players(stream)
        draws = ablation.num_draws * len(players) if ablation.removal == "random" else 0
        gates, labels, net = full.gates, full.labels, of_cells(self.net)
        noise = [random_gates(net, gates.detach(), stream) for _ in range(draws)]
        h: dict[str, Tensor] = {}
        with self.around_ablations():
            if self._differentiates():
                found, through = ablated_losses_and_gradient(
                    net, full.outputs, gates, labels, players, ablation.removal, noise, self.loss_scale
                )
                drawn = self.net.num_groups / len(players)  # makes it an unbiased estimate of the sum over all groups
                back = vector_jacobian(gates, list(full.leaves.values()), through)
                h = {name: gradient * drawn for name, gradient in zip(full.leaves, back, strict=True)}
            else:
                found = ablated_losses(
                    net, full.outputs, gates.detach(), labels, players, ablation.removal, noise, full.notes
                )
        marginal = full.loss.new_full((self.net.num_groups,), float("nan"))
        of_players = losses.contributions(full.loss, found)
        # An ablated network that overflows fp16 says nothing about its cell.
        marginal[players] = torch.where(of_players.isfinite(), of_players, float("nan"))
        mean = marginal.nanmean()
        if ablation.sample_cells is not None:
            before = mean if self.running_mean is None else self.running_mean
            # A step that overflowed, and measured nothing, leaves the mean as it was.
            moved = torch.where(before.isfinite(), 0.9 * before + 0.1 * mean, mean)
            self.running_mean = mean = torch.where(mean.isfinite(), moved, before)
        return _Measured(Contributions(marginal, mean), h, (mean.abs() < ablation.eps).float())

    # --- the published loop -----------------------------------------------------------------------------------------

    def _published(
        self, parameters: Parameters, batch: Batch, stream: torch.Generator, progress: Progress
    ) -> AlphaReport:
        """Group i's Adam sees (i + 1) g(t) + (n - 1 - i) g(t-1) + g_train(t-1) + w_01 (1 + 1/n) dL_01.

        The published code steps and clears one cell's optimiser after each of n backward passes of the same loss, so
        that gradients pile up in the cells that are still to come, and are left over in those that went before.
        """
        full = self._pass(parameters, batch, list(self.net.parameters()), progress)
        n = self.net.num_groups
        position = torch.arange(n, device=full.labels.device)
        before = {name: losses.per_group(position + 1, g) * g for name, g in full.g.items()}
        after = {name: losses.per_group(n - 1 - position, g) * g for name, g in full.g.items()}
        gradients = _sum(before, self.architecture.pull(parameters, progress))
        if self.residual is not None:
            gradients = _sum(gradients, self.residual)
        self.residual = after
        torch._foreach_mul_(full.by_others, n)
        self.leak = full.by_others
        measured = self._ablate(full, stream) if self._ablates() else None
        return self._report(gradients, parameters, full, measured, progress)

    def leak_into_weights(self) -> None:
        """Add the alpha split's gradients, once per group, to those of the weights (D4)."""
        assert self.leak is not None
        for weight, leaked in zip(self.net.parameters(), self.leak, strict=True):
            assert weight.grad is not None
            weight.grad += leaked
        self.leak = None

    def leak_from_weight_step(self, parameters: Parameters, progress: Progress) -> None:
        """Keep the weight step's gradients, regularisers included, for the next alpha step (D5).

        Args:
            parameters: leaves that the weight step's loss was differentiated by.
            progress: where the search is.
        """
        assert self.residual is not None
        kept = _sum(self.residual, {name: leaf.grad for name, leaf in parameters.items() if leaf.grad is not None})
        detached = {name: leaf.detach() for name, leaf in parameters.items()}
        self.residual = _sum(kept, self.architecture.pull(detached, progress, passes=self.net.num_groups))

    # --- records and state ------------------------------------------------------------------------------------------

    def _scalars(
        self,
        parameters: Parameters,
        logits: Tensor,
        labels: Tensor,
        loss: Tensor,
        ablation_loss: Tensor,
        progress: Progress,
    ) -> dict[str, Tensor]:
        terms = self.architecture.values(parameters, progress)
        none = torch.zeros_like(ablation_loss)
        of_terms = sum(terms.values(), start=none) if len(terms) != 1 else next(iter(terms.values()))
        weight = self.architecture.weight(self.config.ablation, progress)
        whole = losses.total(loss.detach(), of_terms, ablation_loss, weight)
        found = {
            "loss": loss.detach(),
            "accuracy": (logits.detach().argmax(1) == labels).float().mean(),
            "total": whole.mean(),
        }
        found |= {name: values.mean() for name, values in terms.items() if name != ZeroOne.name}
        if "alphas" in parameters:
            found["zero_one"] = losses.zero_one(parameters["alphas"]).mean()
        return found

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"num_steps": self.num_steps, "running_mean": self.running_mean, "residual": self.residual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if set(state) != set(self.state_dict()):
            raise UserError(f"unexpected alpha-step state: {', '.join(sorted(state))}")
        device = next(self.net.parameters()).device
        self.num_steps = state["num_steps"]
        mean, residual = state["running_mean"], state["residual"]
        self.running_mean = None if mean is None else mean.to(device)
        self.residual = None if residual is None else {name: stored.to(device) for name, stored in residual.items()}


def _sum(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name added up; a name that `second` lacks stays as it is."""
    return {name: values + second[name] if name in second else values for name, values in first.items()}
