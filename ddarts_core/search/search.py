"""The bilevel search: alphas on one split, weights on another, a score on a third (D-DARTS sections 3, 4; DARTS).

`Search` owns no file, no tracker and no process: it yields an `EpochRecord` per epoch, and its whole state goes in and
out through `state_dict`. Everything random comes from stateless streams of the seed, so a search that is resumed
at an epoch's end goes on bit for bit on a CPU.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.sets import DataInfo, Images, Splits, augment_of, check_batch, load_train, split
from ..genotypes.distance import distance, weights_of
from ..genotypes.genotype import Genotype
from ..genotypes.spaces import S_O, operations_of
from ..ground.errors import Diverged, UserError
from ..loops.confusion import Evaluation, count
from ..loops.recalibration import recalibrated
from ..loops.records import EpochRecord
from ..methods import FREEZINGS
from ..methods.parts import Contributions, Kept, Parameters, Progress
from ..settings.config import ExperimentConfig
from ..settings.hashing import config_hash
from ..settings.search_settings import SearchConfig
from ..settings.warm_start import encode, start_genotype
from ..supernets.coalitions import shapley_values
from ..supernets.execution import choose, prepare
from ..supernets.shapley import ShapleyValues
from ..supernets.supernet import Supernet
from ..tensors.devices import Stopwatch, forget_peak, peak_memory, pick_device
from ..tensors.optimisers import SGD, Adam
from ..tensors.seeding import generator, seeded_init
from .alpha_step import AlphaStep
from .architecture import Architecture, leaves_of
from .discretise import Derivation, discretise, saturation
from .examination import Examination, weight_pass
from .freezing import Watch
from .stages import Course, Place

#: Metric of an epoch: how far the genotype that the gates stand for is from `search.start` (`distance.distance`).
DISTANCE = "distance/start"


def cosine(start: float, end: float, epoch: int, epochs: int) -> float:
    """Cosine annealing from `start` in epoch 0 towards `end`, which it would reach in epoch `epochs`."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Search:
    """One search.

    Args:
        config: the whole experiment; `seed` owns everything random.
        info: of the data set.
        splits: three disjoint sets of training images.
        device: overrides `search.device`.

    Raises:
        UserError: a batch is larger than its split, or the images do not fit the reductions.

    Example:
        >>> from ddarts_core.settings.config import resolve
        >>> search = build_search(resolve({"search": {"num_cells": 3, "channels": 2, "steps": 2, "epochs": 1}}))
        >>> record = next(search.records())
        >>> sorted(record.metrics)[:2]
        ['ablation/clamped', 'ablation/mean_contribution']
    """

    def __init__(
        self, config: ExperimentConfig, info: DataInfo, splits: Splits, device: torch.device | None = None
    ) -> None:
        if config.search.number is not None:
            raise UserError(
                f"search.number {config.search.number} names a genotype, so there is nothing to search: ddarts truth "
                "trains it; leave it out to search"
            )
        self.config = config
        self.info = info
        self.splits = splits
        self.device = device or pick_device(config.search.device)
        self.epoch = 0
        self._weighed = _weighed_start(config.search)
        #: Distance to the start after each epoch that `search.stop` counts.
        self._distances: list[float] = []
        self.course = Course(config)
        self.num_epochs = self.course.num_epochs
        if config.ablation.loss == "paper":
            warnings.warn(
                "ablation.loss paper divides by the mean of M, which may be near 0: expect spikes; centered does not",
                stacklevel=2,
            )
        check_batch("weights", len(splits.weights), config.search.batch_size)
        check_batch("alphas", len(splits.alphas), config.search.batch_size)
        self.execution = choose(config, self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.execution.scales_loss)
        self._scaler.scale(torch.zeros((), device=self.device))  # its first call makes the scale that `update` needs
        self._build(0, None)

    # --- stages -----------------------------------------------------------------------------------------------------

    def _build(self, number: int, kept: Kept | None, *, fresh: bool = True) -> None:
        """What a stage trains and trains with; unless `fresh`, network, parameters and SGD stay as they are.

        Attributes: `now`, the experiment in this stage; `kept`, the operations that its edges have.
        """
        config = self.now = self.course.settings(number)
        self.stage, self.kept = number, kept
        if fresh:
            with seeded_init(config.seed, "supernet", *[number][: number > 0]):
                net = Supernet(config.search, self.info, kept)
            self.net = prepare(net, self.execution, self.device)
            self._sgd = SGD(
                self.net.parameters(),
                lr=config.search.lr,
                momentum=config.search.momentum,
                weight_decay=config.search.weight_decay,
            )
            rule = FREEZINGS[config.search.freezing](config.search)
            self._watch = None if rule.period is None else Watch(self.net, rule)
            #: What the plan remembers of its decisions.
            self._memory: dict[str, Tensor] = {}
        fixed = None if fresh else self.architecture.fixed
        self._step = AlphaStep(self.net, config, kept)
        self._step.watch = self._watch
        self.architecture: Architecture = self._step.architecture
        self.architecture.fixed = fixed
        if fresh:
            #: Architecture parameters by name, one tensor per group: each group has an optimiser of its own.
            self._parameters = {
                name: [nn.Parameter(values.clone().to(self.device)) for values in start]
                for name, start in self._start(number).items()
            }
        self._adams = [
            Adam(list(of_group), lr=config.alpha.lr, betas=config.alpha.betas, weight_decay=config.alpha.weight_decay)
            for of_group in zip(*self._parameters.values(), strict=True)
        ]

    def _enter(self, number: int) -> None:
        """Go on to a stage, with what it takes over from the one before."""
        stage, kept = self.course.stages[number], self.kept
        if stage.kept is not None:
            scores = self.architecture.own_scores(self.parameters).tolist()
            before = kept or [[list(range(len(edge))) for edge in group] for group in scores]
            kept = self.course.plan.keep(scores, before, stage.kept)
        if stage.fresh or stage.settings != self.course.stages[self.stage].settings:
            self._build(number, kept, fresh=stage.fresh)
        self.stage = number

    def _start(self, number: int) -> dict[str, Tensor]:
        """Architecture parameters at the start of a stage."""
        config = self.now
        stream = generator(config.seed, "alphas", *[number][: number > 0]) if config.alpha.init == "normal" else None
        start = self.architecture.parameters(stream)
        if config.search.start is not None:
            known = torch.tensor(encode(start_genotype(config.search), config.search.space, config.search.steps))
            for cell, group in enumerate(self.net.group_of):
                margin = config.alpha.start_margin * (2 * known[cell] - 1) / self.net.group_of.count(group)
                start["alphas"][group] += margin
        return start

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Architecture parameters by name, detached; the first axis of each is the group."""
        return {name: torch.stack([value.detach() for value in values]) for name, values in self._parameters.items()}

    @property
    def alphas(self) -> Tensor:
        """The parameters that every method but few has: one per operation, [groups, edges, operations]."""
        return self.parameters["alphas"]

    @property
    def gates(self) -> Tensor:
        """Weights of the operations outside steps, those that the edge adds at the end: `Architecture.gates`."""
        return self.architecture.gates(self.parameters, self._progress())

    @property
    def decided_gates(self) -> Tensor:
        """Gates of the operations that a genotype may take, [groups, edges, operations]."""
        return self.gates[:, : self.architecture.shape.edges, : self.architecture.shape.operations]

    def _progress(self, purpose: str = "evaluation", epoch: int | None = None, step: int = 0) -> Progress:
        """Where the search is, in a step of alphas or weights or outside."""
        epoch = self.epoch if epoch is None else epoch
        place = self.course.at(epoch)

        def draw() -> torch.Generator:
            return generator(self.config.seed, "gates", purpose, epoch, step, device=self.device)

        def draw_once(steps: int) -> torch.Generator:
            return generator(self.config.seed, "gates", "steps", epoch, step // steps, device=self.device)

        in_step = purpose != "evaluation"
        return Progress(
            place.epoch,
            place.epochs,
            place.stage_epoch,
            place.stage.epochs,
            purpose,
            draw if in_step else None,
            draw_once if in_step else None,
        )

    @property
    def cell_gates(self) -> Tensor:
        """`decided_gates` of each cell that a genotype has, [cells, edges, operations], on the CPU."""
        return self._per_cell(self.decided_gates.cpu())

    def _per_cell(self, values: Tensor) -> Tensor:
        """What groups have, for each of their cells; DARTS' two groups, whose genotype has two cells, as they are."""
        return values if self.config.search.sharing == "normal_reduce" else values[list(self.net.group_of)]

    # --- the loop ---------------------------------------------------------------------------------------------------

    def records(self) -> Iterator[EpochRecord]:
        """Run from the current epoch to the last; one record per epoch.

        Raises:
            Diverged: a loss is not finite.
        """
        while not self.over:
            # Operations of plug-ins may draw, as dropout does, from torch's own generators.
            with seeded_init(self.config.seed, "search", "operations", self.epoch):
                record = self._run_epoch()
            yield record

    @property
    def over(self) -> bool:
        """Whether the last epoch is done: that of the settings, or the one after which `search.stop` ends the search.

        It ends when the last distance to the start and those of `stop.epochs` epochs before it differ by no more than
        `stop.distance`.
        """
        return self.epoch >= self.num_epochs or self._stands_still

    @property
    def _stands_still(self) -> bool:
        stop, found = self.config.search.stop, self._distances
        if stop is None or len(found) <= stop.epochs:
            return False
        return all(abs(found[-1] - before) <= stop.distance for before in found[-1 - stop.epochs : -1])

    def _run_epoch(self) -> EpochRecord:
        epoch, place = self.epoch, self.course.at(self.epoch)
        if place.number != self.stage:
            self._enter(place.number)
        stage, config = place.stage, self.now.search
        self._set_learning_rates(place)
        forget_peak(self.device)
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=self.device))
        counts: dict[str, int] = defaultdict(int)
        marginals: list[Tensor] = []
        clamped = torch.zeros((), device=self.device)
        alpha_batches = self._alpha_batches(epoch)
        watch = Stopwatch(self.device)
        if stage.decides:
            self._decide()
            watch.lap("alphas")
        of_weights = self.splits.weights.joined(self.splits.alphas) if stage.joint else self.splits.weights
        for step, (images, labels) in enumerate(self._batches(of_weights, "weights", epoch, 0)):
            watch.lap("data")
            if stage.renewed is not None and step % stage.renewed == 0:
                self._renew()
            if stage.trains_alphas and stage.by_gradient:
                same = stage.joint or config.order == "single_level"
                batch = (images, labels) if same else next(alpha_batches)
                watch.lap("data")
                report = self._alpha_step(batch, (images, labels), epoch, step)
                for name, value in report.scalars.items():
                    sums[f"alpha/{name}"] += value
                    counts[f"alpha/{name}"] += 1
                if report.contributions is not None:
                    marginals.append(report.contributions)
                    clamped += report.clamped
                watch.lap("alphas")
            loss, correct = self._weight_step(images, labels, epoch, step)
            sums["train/loss"] += loss
            sums["train/accuracy"] += correct
            counts["train/loss"] += 1
            counts["train/accuracy"] += len(labels)
            watch.lap("weights")
        metrics = {name: float(value / counts[name]) for name, value in sums.items()}
        self._require_finite(metrics, epoch)
        watch.lap("weights")
        scores = self.evaluate(self.splits.held_out, watch).metrics
        metrics |= {f"held_out/{name}": value for name, value in scores.items()}
        metrics |= self._architecture_metrics()
        stop = self.config.search.stop
        if stop is not None and stage.trains_alphas and place.stage_epoch >= stop.after and DISTANCE in metrics:
            self._distances.append(metrics[DISTANCE])
        shapley = self._shapley_values()
        watch.lap("evaluation")
        contributions: tuple[float, ...] = ()
        ablation: tuple[float, ...] = ()
        if self._step.ablation is not None and marginals:
            # Cells that were not drawn in a step are NaN there: average what was measured.
            mean = torch.stack(marginals).nanmean(0)
            contributions = tuple(mean.tolist())
            found = Contributions(mean, mean.nanmean())
            ablation = tuple(self._step.ablation.value(found).tolist())
            metrics["ablation/mean_contribution"] = float(found.mean)
            metrics["ablation/clamped"] = float(clamped) / len(marginals)
        self._require_finite(metrics, epoch)
        self.epoch += 1
        return EpochRecord(
            epoch=epoch,
            phase=stage.phase,
            network=place.network,
            metrics=metrics,
            contributions=contributions,
            ablation=ablation,
            **(self._recorded_architecture() if config.record_alphas else {}),
            shapley=shapley.values,
            shapley_errors=shapley.standard_errors,
            seconds=watch.seconds(),
            peak_memory=peak_memory(self.device),
        )

    def _renew(self) -> None:
        """Let the optimisers forget the steps before."""
        for optimiser in (self._sgd, *self._adams):
            optimiser.state.clear()

    def _decide(self) -> None:
        """What the plan decides before an epoch, by images of the alphas' split."""
        parameters = self.parameters
        found = Examination(
            self.net,
            self.architecture,
            parameters,
            self._memory,
            self._progress(),
            generator(self.config.seed, "decisions", self.epoch, device=self.device),
            lambda stream: self._unaugmented(self.splits.alphas, stream, drop_last=True),
            self.execution.begin_step,
        )
        self.course.plan.decide(found)
        self._set_parameters(parameters)

    def _set_parameters(self, parameters: Parameters) -> None:
        for name, values in self._parameters.items():
            for value, of_group in zip(values, parameters[name], strict=True):
                value.data.copy_(of_group)

    def _alpha_step(
        self, batch: tuple[Tensor, Tensor], weight_batch: tuple[Tensor, Tensor], epoch: int, step: int
    ) -> Any:
        self.execution.begin_step()
        stream = generator(self.config.seed, "ablation", epoch, step, device=self.device)
        self._step.loss_scale = self._scaler.get_scale()
        progress = self._progress("alphas", epoch, step)
        self.architecture.begin(self.net, progress)
        parameters = self.parameters
        report = self._step.gradients(parameters, batch, weight_batch, self._sgd, stream, progress)
        finite = (gradient.isfinite().all() for gradient in report.gradients.values())
        if self.execution.scales_loss and not all(map(bool, finite)):
            # fp16 overflowed: leave the step out and scale less, as the scaler does in a weight step. An ablated
            # network may overflow where the weight step, which sets the scale, does not.
            self._scaler.update(self._scaler.get_scale() * self._scaler.get_backoff_factor())
            return report
        for name, values in self._parameters.items():
            for value, gradient in zip(values, report.gradients[name], strict=True):
                value.grad = gradient
        if self.now.alpha.grad_clip is not None:
            every = [value for values in self._parameters.values() for value in values]
            nn.utils.clip_grad_norm_(every, self.now.alpha.grad_clip)
        for adam in self._adams:
            adam.step()
        if trained := self.architecture.trained(parameters, progress):
            # Weight decay and momentum move what has no gradient too.
            moved = self.parameters
            kept = {name: torch.where(mask, moved[name], parameters[name]) for name, mask in trained.items()}
            self._set_parameters(moved | kept)
        return report

    def _weight_step(self, images: Tensor, labels: Tensor, epoch: int = 0, step: int = 0) -> tuple[Tensor, Tensor]:
        """One SGD step of the weights: the alphas are constants, the running statistics move once."""
        self.execution.begin_step()
        parameters, progress = self.parameters, self._progress("weights", epoch, step)
        self.architecture.begin(self.net, progress)
        published = self.config.alpha.grad_mode == "published" and self._step.leak is not None
        if published:
            parameters = leaves_of(parameters)
        self.net.train()
        logits, loss = weight_pass(
            self.net, self.architecture, parameters, progress, (images, labels), self.execution.begin_step
        )
        self._sgd.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._sgd)
        if published:
            self._step.leak_into_weights()
            self._step.leak_from_weight_step(parameters, progress)
        if self._watch is not None:
            self._watch.step()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.config.search.grad_clip)
        self._scaler.step(self._sgd)
        self._scaler.update()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    @torch.no_grad()
    def evaluate(self, images: Images, watch: Stopwatch | None = None) -> Evaluation:
        """Loss and confusion matrix of the supernet on whole `images`.

        Batch normalisation uses statistics that are estimated anew, from `search.recalibration_batches` batches of
        images that train the weights.
        """
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        found = []  # labels and predictions of each batch
        with recalibrated(self.net, self._recalibration_passes()) as recalibration_batches:
            if watch is not None:
                watch.lap("recalibration")
            self.net.eval()
            gates = self.gates
            for x, labels in self._unaugmented(images):
                self.execution.begin_step()
                logits = self.net(x, gates)
                loss += F.cross_entropy(logits, labels, reduction="sum")
                found.append(torch.stack([labels, logits.argmax(1)]))
        truth, predicted = torch.cat(found, 1)
        counts = count(truth, predicted, self.info.num_classes)
        return Evaluation.of(float(loss) / len(images), counts, recalibration_batches)

    def _recalibration_passes(self) -> Iterator[None]:
        """Passes that measure the statistics anew. They take the same images after every epoch, not augmented."""
        self.net.train()
        gates = self.gates
        stream = generator(self.config.seed, "recalibration", device=self.device)
        batches = self._unaugmented(self.splits.weights, stream, drop_last=True)
        for x, _ in islice(batches, self.config.search.recalibration_batches):
            self.execution.begin_step()
            self.net(x, gates)
            yield

    def _shapley_values(self) -> ShapleyValues:
        """Shapley values on the first batch of held-out images, in the last epoch; else, or if not asked for, empty."""
        ablation = self.config.ablation
        last = self.epoch + 1 >= self.num_epochs or self._stands_still
        if not ablation.shapley_permutations or not last:
            return ShapleyValues((), ())
        images, labels = next(self._unaugmented(self.splits.held_out))
        return shapley_values(
            self.net,
            images,
            labels,
            self.gates,
            ablation.removal,
            permutations=ablation.shapley_permutations,
            seed=self.config.seed,
        )

    def discretise(self) -> Derivation:
        """The genotype that the current gates stand for (section 5.1)."""
        search = self.now.search
        return discretise(
            self._per_cell(self.architecture.scores(self.parameters).cpu()),
            self.config.discretise,
            space=search.space,
            steps=search.steps,
            reductions=search.reduction_positions,
            layout="normal_reduce" if search.sharing == "normal_reduce" else "individual",
            links=self.architecture.links(self.parameters),
        )

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; safe to load with `torch.load(weights_only=True)`."""
        return {
            "config_hash": config_hash(self.config),
            "epoch": self.epoch,
            "stage": self.stage,
            "distances": list(self._distances),
            "kept": self.kept,
            "weights": self.net.state_dict(),
            "architecture": self.parameters,
            "sgd": self._sgd.state_dict(),
            "adams": [adam.state_dict() for adam in self._adams],
            "alpha_step": self._step.state_dict(),
            "decisions": {"fixed": self.architecture.fixed, "memory": dict(self._memory)},
            "freezing": None if self._watch is None else self._watch.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            UserError: the state belongs to another configuration.
        """
        if state["config_hash"] != config_hash(self.config):
            raise UserError(
                f"the checkpoint belongs to another configuration (hash {state['config_hash']}, "
                f"this one is {config_hash(self.config)}): resume with the settings it was started with"
            )
        self.epoch = state["epoch"]
        self._distances = list(state.get("distances", ()))
        if "alphas" in state:
            state = _as_of_today(state)
        if state["stage"] != self.stage:
            self._build(state["stage"], state["kept"])
        self.net.load_state_dict(state["weights"])
        self._set_parameters(state["architecture"])
        self._sgd.load_state_dict(state["sgd"])
        for adam, stored in zip(self._adams, state["adams"], strict=True):
            adam.load_state_dict(stored)
        self._step.load_state_dict(state["alpha_step"])
        decisions = state.get("decisions", {"fixed": None, "memory": {}})  # a state of before there were any has none
        self._memory = {name: stored.to(self.device) for name, stored in decisions["memory"].items()}
        fixed = decisions["fixed"]
        self.architecture.fixed = None if fixed is None else fixed.to(self.device)
        if self._watch is not None:
            self._watch.load_state_dict(state["freezing"])
        self._scaler.load_state_dict(state["scaler"])

    # --- parts ------------------------------------------------------------------------------------------------------

    def _batches(self, images: Images, name: str, epoch: int, cycle: int) -> Iterator[tuple[Tensor, Tensor]]:
        stream = generator(self.config.seed, name, epoch, cycle, device=self.device)
        for x, labels in images.batches(
            self.config.search.batch_size,
            generator=stream,
            device=self.device,
            info=self.info,
            augment=augment_of(self.config.data, self.info.name),
            drop_last=True,
        ):
            yield x.contiguous(memory_format=self.execution.layout), labels

    def _unaugmented(
        self, images: Images, stream: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for x, labels in images.batches(
            self.config.search.batch_size, generator=stream, device=self.device, info=self.info, drop_last=drop_last
        ):
            yield x.contiguous(memory_format=self.execution.layout), labels

    def _alpha_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the alpha split without end: shuffled anew at every pass."""
        cycle = 0
        while True:
            yield from self._batches(self.splits.alphas, "alphas", epoch, cycle)
            cycle += 1

    def _set_learning_rates(self, place: Place) -> None:
        search, alpha, stage = self.now.search, self.now.alpha, place.stage
        for group in self._sgd.param_groups:
            group["lr"] = cosine(search.lr, search.lr_min, place.epoch, place.epochs)
        done = place.stage_epoch if stage.trains_alphas else 0
        lr = alpha.lr if alpha.schedule == "constant" else cosine(alpha.lr, alpha.lr_min, done, stage.epochs)
        for adam in self._adams:
            for group in adam.param_groups:
                group["lr"] = lr

    def _architecture_metrics(self) -> dict[str, float]:
        gates = self.decided_gates
        over, under = saturation(gates.cpu())
        derivation = self._derivation_or_none()
        metrics: dict[str, float] = {
            "operations/over_0.9": over,
            "operations/under_0.1": under,
            "saturation/over_0.9": over / gates.numel(),
            "saturation/under_0.1": under / gates.numel(),
        }
        if self._watch is not None:
            metrics["operations/frozen"] = int(self._watch.frozen.sum())
        if derivation is not None and self._weighed is not None:
            metrics[DISTANCE] = distance(self._weighed[0], derivation.genotype, self._weighed[1])
        if derivation is not None:
            edges = [edge for cell in derivation.genotype.cells for edge in cell.edges]
            metrics |= {
                "discretised/skip_connections": sum(edge.op == "skip_connect" for edge in edges),
                "discretised/empty_nodes": len(derivation.fallback) + len(derivation.dropped),
                "discretised/dead_cells": len(derivation.dead_cells),
            }
        return metrics

    def _recorded_architecture(self) -> dict[str, Any]:
        """Alphas and gates in the space's order, and other parameters; gates that are sigma(alpha) are left out."""
        others = self.parameters
        alphas, of_space = others.pop("alphas"), self.architecture.of_space
        found: dict[str, Any] = {"alphas": _nested(of_space(alphas))}
        if not self.architecture.independent:
            found["gates"] = _nested(of_space(self.decided_gates))
        return found | {"parameters": {name: values.tolist() for name, values in others.items()}}

    def _derivation_or_none(self) -> Derivation | None:
        try:
            return self.discretise()
        except UserError:  # the gates of an unfinished search need not make a network yet; the end reports it
            return None

    def _require_finite(self, metrics: dict[str, float], epoch: int) -> None:
        bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if bad:
            raise Diverged(
                f"the search diverged in epoch {epoch}: {bad[0]} is {metrics[bad[0]]}; lower search.lr or alpha.lr"
                + (", or use ablation.loss: centered" if self.config.ablation.loss == "paper" else "")
            )


def _weighed_start(config: SearchConfig) -> tuple[Genotype, dict[str, float]] | None:
    """The start and the weights of the space's operations; None without a start, or in a space that has no weights.

    Raises:
        UserError: `search.stop` needs the weights that the space lacks.
    """
    if config.start is None:
        return None
    try:
        return start_genotype(config), weights_of(config.space)
    except UserError:
        if config.stop is not None or set(operations_of(config.space)) <= {"none", *S_O}:
            raise
        return None


def build_search(config: ExperimentConfig, device: torch.device | None = None) -> Search:
    """Load the training images, split them and set up the search.

    Raises:
        UserError: the data set is missing, or a setting does not fit it.
    """
    info, train = load_train(config.data)
    return Search(config, info, split(train, config.data, config.seed), device)


def _nested(alphas: Tensor) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return tuple(tuple(tuple(edge) for edge in group) for group in alphas.tolist())


def _as_of_today(state: dict[str, Any]) -> dict[str, Any]:
    """A state of a version in which alphas were the only architecture parameters, and a search had no stages."""
    step, alphas = dict(state["alpha_step"]), state["alphas"]
    if step["residual"] is not None:
        step["residual"] = {"alphas": step["residual"]}
    return {**state, "architecture": {"alphas": alphas}, "alpha_step": step, "stage": 0, "kept": None}
