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

from ..data.sets import DataInfo, Images, augment_of, load_train
from ..data.splits import Splits, check_batch, split
from ..genotypes.genotype import Genotype
from ..ground.errors import Advice, Diverged, UserError
from ..loops.confusion import Evaluation, count
from ..loops.recalibration import recalibrated
from ..loops.records import EpochRecord
from ..methods.parts import Contributions
from ..settings.config import ExperimentConfig
from ..supernets.coalitions import shapley_values
from ..supernets.shapley import ShapleyValues
from ..supernets.supernet import of_cells
from ..tensors.devices import Stopwatch, forget_peak, peak_memory, pick_device
from ..tensors.seeding import generator, seeded_init
from .architecture import leaves_of
from .companion import Companion
from .discretise import Derivation
from .examination import Examination, weight_pass
from .recording import DISTANCE, architecture_fields, decided_metrics, weighed_start
from .stages import Place
from .state import SearchState


def cosine(start: float, end: float, epoch: int, epochs: int) -> float:
    """Cosine annealing from `start` in epoch 0 towards `end`, which it would reach in epoch `epochs`."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Search(SearchState):
    """One search.

    Args:
        config: the whole experiment; `seed` owns everything random.
        info: the facts of the data set.
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
        if config.ablation.loss == "paper":
            warnings.warn(
                "ablation.loss paper divides by the mean of M, which may be near 0: expect spikes; centered does not",
                Advice,
                stacklevel=2,
            )
        self._weighed = weighed_start(config.search)
        check_batch("weights", len(splits.weights), config.search.batch_size)
        check_batch("alphas", len(splits.alphas), config.search.batch_size)
        super().__init__(config, info, device or pick_device(config.search.device))
        self.splits = splits
        self.num_epochs = self.course.num_epochs

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
        derived: dict[str, float] = {}
        if self._companion is not None and place.stage_epoch % self._companion.beside.cycle == 0:
            derived = self._begin_cycle(self._companion, epoch)
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
        metrics = {name: float(value / counts[name]) for name, value in sums.items()} | derived
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

    def _begin_cycle(self, companion: Companion, epoch: int) -> dict[str, float]:
        """Build the network of the genotype and warm it up; its mean loss in the last pass."""
        companion.begin(Genotype.narrowed(self.discretise().genotype, "a network beside the supernet"))
        metrics = {}
        for number in range(companion.beside.warmup):
            batches = self._batches(self.splits.alphas, "beside", epoch, number)
            of_steps = [companion.train_alone(batch) for batch in batches]
            metrics["alpha/derived_loss"] = float(torch.stack(of_steps).mean())
        return metrics

    def _renew(self) -> None:
        """Let the optimisers forget the steps before."""
        for optimiser in (self._sgd, *self._adams):
            optimiser.state.clear()

    def _decide(self) -> None:
        """Let the plan decide before an epoch, by images of the alphas' split."""
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
        # On a GPU torch takes all weights at once without being asked.
        at_once = True if self.device.type == "cpu" else None
        nn.utils.clip_grad_norm_(self.net.weights, self.config.search.grad_clip, foreach=at_once)
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
            of_cells(self.net),
            images,
            labels,
            self.gates,
            ablation.removal,
            permutations=ablation.shapley_permutations,
            seed=self.config.seed,
        )

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
        frozen = None if self._watch is None else int(self._watch.frozen.sum())
        return decided_metrics(
            self.architecture.listed(self.decided_gates), self._derivation_or_none(), self._weighed, frozen
        )

    def _recorded_architecture(self) -> dict[str, Any]:
        return architecture_fields(self.architecture, self.parameters, self.decided_gates)

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


def build_search(config: ExperimentConfig, device: torch.device | None = None) -> Search:
    """Load the training images, split them and set up the search.

    Raises:
        UserError: the data set is missing, or a setting does not fit it.
    """
    info, train = load_train(config.data)
    return Search(config, info, split(train, config.data, config.seed), device)
