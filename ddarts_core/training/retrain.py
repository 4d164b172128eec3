"""Training of a derived network from scratch (D-DARTS section 5.1; DARTS' evaluation).

`Retrain` owns no file, no tracker and no process. It yields an `EpochRecord` per epoch, and its whole state can be read
with `state_dict` and restored with `load_state_dict`. Everything random comes from stateless streams of the seed. So a
training that is resumed at the end of an epoch goes on bit for bit on a CPU. `Retrain` never sees the test images:
`evaluate` them once, after the training.

Several processes can train together (`parallel.Group`). Each runs this loop on its share of every batch, with random
draws for the whole batch. All of them yield the same records and hold the same state, which are those of one process,
except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.sets import DataInfo, Images, augment_of
from ..data.splits import check_batch
from ..genotypes.genotype import AnyGenotype, Genotype
from ..ground.errors import Diverged, UserError
from ..loops.confusion import Evaluation, count
from ..loops.losses import balanced_weights, weighted_cross_entropy
from ..loops.mistakes import Surest, surest
from ..loops.recalibration import initial_share, recalibrated
from ..loops.records import EpochRecord
from ..networks.building import build_network
from ..networks.compiled import CompiledForm
from ..networks.derived import DerivedNetwork
from ..networks.fused import fused
from ..networks.network import CellForm, Network
from ..networks.training_free import scores
from ..settings.hashing import config_hash
from ..settings.retrain_settings import RetrainConfig
from ..tensors.compiler import check_compile
from ..tensors.devices import AUTOCAST, Stopwatch, check_amp, forget_peak, peak_memory, pick_device, set_float32
from ..tensors.optimisers import SGD
from ..tensors.seeding import generator, seeded_init
from .parallel import ALONE, Group
from .schedules import drop_path_probability, learning_rate

#: Steps between two looks at the losses: each look waits for the GPU.
CHECK_EVERY = 100

#: A network is scored with recalibrated statistics while its running ones hold more than this share of what they began
#: with: for fewer than 88 steps at momentum 0.1.
MOST_INITIAL = 1e-4

#: Batches of training images that it is then recalibrated from.
RECALIBRATION_BATCHES = 8

_COUNT = "num_batches_tracked"


def check_batches(config: RetrainConfig, num_images: int) -> None:
    """Refuse a batch that is too small to be normalised, or that is larger than the set of training images.

    Args:
        config: the settings of the training.
        num_images: how many training images there are.

    Raises:
        UserError: the batch is too small or too large.
    """
    if config.batch_size < 2:
        raise UserError("retrain.batch_size 1: batch normalisation needs 2 images or more per batch")
    check_batch("train", num_images, config.batch_size, "retrain.batch_size")


def _form_of(config: RetrainConfig, genotype: AnyGenotype, device: torch.device, group: Group) -> CellForm:
    """Return how the cells of the network are computed in training steps, as the settings ask for it.

    Raises:
        UserError: what is asked of torch.compile cannot be done.
    """
    if config.compile == "none":
        return fused
    if not isinstance(genotype, Genotype):
        raise UserError(
            "retrain.compile joins the operations of cells, which a genotype of stages lacks: set it to none"
        )
    if group.count > 1:
        raise UserError(
            f"retrain.compile cannot join what {group.count} processes compute together, as they normalise whole "
            "batches: set it to none, or train with one process"
        )
    check_compile(config.compile, device, "retrain.compile")
    return CompiledForm(config.compile)


class Retrain:
    """One training of a network from scratch.

    Args:
        config: the settings of the training.
        genotype: the genotype of the network. If `config.num_cells` is given, a network of so many cells is derived.
        info: the facts of the data set.
        train: the images that train the weights.
        validation: the images on which the network is only evaluated, after each epoch, to choose the best epoch. None:
            no epoch is chosen.
        seed: the seed from which everything random follows.
        device: the device to train on, in place of `config.device`.
        group: the processes that train together. Each of them builds this object with the same arguments.

    Attributes:
        epoch: the number of the next epoch, from 0.
        num_epochs: how many epochs the whole training has.
        best_epoch: the epoch of the highest validation accuracy so far, or the first of several equal ones. If
            `class_weights` is balanced, the balanced accuracy counts. None without validation images.

    Raises:
        UserError: the network cannot be built, a batch does not fit, or the device cannot do what is asked for.

    Example:
        >>> from ddarts_core.settings.data_settings import DataConfig
        >>> from ddarts_core.data.sets import load_train
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> info, images = load_train(DataConfig(name="digits", num_train=60))
        >>> config = RetrainConfig(channels=2, epochs=1, batch_size=30)
        >>> retrain = Retrain(config, ZOO["ResNet18"].genotype, info, images, None, seed=0)
        >>> [sorted(record.metrics) for record in retrain.records()]
        [['train/accuracy', 'train/loss']]
    """

    def __init__(
        self,
        config: RetrainConfig,
        genotype: AnyGenotype,
        info: DataInfo,
        train: Images,
        validation: Images | None,
        seed: int,
        device: torch.device | None = None,
        group: Group = ALONE,
    ) -> None:
        self.config = config
        self.genotype = genotype
        self.info = info
        self.train = train
        self.validation = validation
        self.seed = seed
        self.device = device or pick_device(config.device, "retrain.device")
        self.group = group
        self.epoch = 0
        self.num_epochs = config.epochs
        check_batches(config, len(train))
        if config.batch_size < group.count:
            raise UserError(
                f"retrain.batch_size {config.batch_size} leaves some of the {group.count} processes without an image: "
                f"use {group.count} or more"
            )
        check_amp(config.amp, self.device, "retrain.amp")
        self._form = _form_of(config, genotype, self.device, group)
        set_float32(config.amp)
        with seeded_init(seed, "retrain", "network"):
            self._trained = self._build()
            self._averaged = self._build() if config.ema_decay else None
        if self._averaged is not None:
            self._averaged.load_state_dict(self._trained.state_dict())
            self._averaged = group.synchronised(self._averaged)
        self._parameters = list(self._trained.parameters())
        self._distributed = group.distribute(self._trained)
        self._averages = self._pairs(torch.is_floating_point)
        self._counts = self._pairs(lambda value: not value.is_floating_point())
        self._sgd = SGD(
            self._parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, foreach=True
        )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self._class_weights: Tensor | None = None
        if config.class_weights == "balanced":
            self._class_weights = balanced_weights(train.labels.to(self.device), info.num_classes)
        self._num_updates = 0
        self._best: dict[str, Any] | None = None

    def _build(self) -> DerivedNetwork:
        network = build_network(self.config, self.genotype, self.info)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _pairs(self, wanted: Callable[[Tensor], bool]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the averaged and the trained values of a kind, in one order; they are views, which steps change."""
        networks = () if self._averaged is None else (self._averaged, self._trained)
        values = [[value for value in network.state_dict().values() if wanted(value)] for network in networks]
        averaged, trained = values or ([], [])
        return averaged, trained

    @property
    def network(self) -> DerivedNetwork:
        """The network to evaluate and keep: with the averaged weights if `ema_decay` is on, else the trained ones."""
        return self._trained if self._averaged is None else self._averaged

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the highest validation accuracy so far, balanced accuracy if `class_weights` is balanced.

        It is None before the first epoch and without validation images.
        """
        return None if self._best is None else int(self._best["epoch"])

    # --- the loop ---------------------------------------------------------------------------------------------------

    def records(self) -> Iterator[EpochRecord]:
        """Train from the current epoch to the last, and yield one record per epoch.

        Raises:
            Diverged: a loss is not finite.
        """
        while not self.over:
            # Operations of plug-ins may draw, as dropout does, from torch's generators, each process for its images.
            with seeded_init(self.seed, "retrain", "operations", self.epoch, self.group.rank):
                record = self._run_epoch()
            yield record

    def training_free_scores(self) -> dict[str, float]:
        """Return the scores of `networks.training_free.scores` for the network as it is now, on the first batch."""
        images, _ = next(self.train.batches(self.config.batch_size, info=self.info, device=self.device))
        return scores(self._trained, images)

    @property
    def over(self) -> bool:
        """Whether the last epoch is done."""
        return self.epoch >= self.num_epochs

    def _begin(self, epoch: int) -> None:
        """Have the network and the optimiser do the steps of an epoch from now on."""
        for group in self._sgd.param_groups:
            group["lr"] = learning_rate(self.config, epoch)
        if isinstance(self._trained, Network):
            self._trained.form = self._form
        self._trained.drop_path = drop_path_probability(self.config, epoch)
        self._trained.generator = generator(self.seed, "retrain", "drop_path", epoch, device=self.device)
        self._trained.of_batch = (self.config.batch_size, self.group.share.of(self.config.batch_size))
        self._distributed.train()

    def _run_epoch(self) -> EpochRecord:
        epoch = self.epoch
        forget_peak(self.device)
        self._begin(epoch)
        watch = Stopwatch(self.device)
        losses: list[Tensor] = []  # of shares, not looked at yet
        looked: list[Tensor] = []
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for images, labels in self._batches(epoch):
            watch.lap("data")
            loss, hits = self._step(images, labels)
            losses.append(loss)
            correct += hits
            if len(losses) == CHECK_EVERY:
                looked += self._look(losses, len(looked))
                losses = []
            watch.lap("weights")
        looked += self._look(losses, len(looked))
        metrics = {
            "train/loss": float(torch.stack(looked)[:, 0].double().mean()),
            "train/accuracy": int(self.group.total(correct)) / (len(looked) * self.config.batch_size),
        }
        if self.validation is not None:
            watch.lap("weights")
            result = self.evaluate(self.validation).metrics
            metrics |= {f"validation/{name}": value for name, value in result.items()}
            watch.lap("evaluation")
            score = result["accuracy" if self._class_weights is None else "balanced_accuracy"]
            if self._best is None or score > self._best["accuracy"]:
                self._best = {"epoch": epoch, "accuracy": score, "weights": self.weights()}
        self.epoch += 1
        return EpochRecord(epoch, "retrain", metrics, seconds=watch.seconds(), peak_memory=peak_memory(self.device))

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled and augmented batches. A smaller last batch is left out."""
        config = self.config
        for images, labels in self.train.batches(
            config.batch_size,
            generator=generator(self.seed, "retrain", epoch, device=self.device),
            device=self.device,
            info=self.info,
            augment=augment_of(config, self.info.name),
            drop_last=True,
            share=self.group.share,
        ):
            yield images.contiguous(memory_format=torch.channels_last), labels

    def _autocast(self) -> torch.autocast:
        amp = self.config.amp
        return torch.autocast(self.device.type, AUTOCAST.get(amp, torch.bfloat16), enabled=amp in AUTOCAST)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Do one SGD step on this process's share of a batch.

        Returns:
            [loss of the main head, loss that is minimised], each as this share's part of the loss of the whole batch;
            and how many answers are right.
        """
        part = len(labels) / self.config.batch_size
        if self.config.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch
        with self._autocast():
            output = self._distributed(images)
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        main = loss = part * self._cross_entropy(logits, labels)
        if auxiliary is not None:
            loss = main + self.config.auxiliary_weight * (part * self._cross_entropy(auxiliary, labels))
        self._sgd.zero_grad(set_to_none=True)
        self._scaler.scale(self.group.count * loss).backward()  # type: ignore[no-untyped-call]  # mypy: torch leaves it untyped
        self._scaler.unscale_(self._sgd)
        nn.utils.clip_grad_norm_(self._parameters, self.config.grad_clip)
        self._scaler.step(self._sgd)
        self._scaler.update()
        self._update_average()
        return torch.stack([main.detach(), loss.detach()]), (logits.detach().argmax(1) == labels).sum()

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over these images of the loss that is minimised."""
        smoothing = self.config.label_smoothing
        if self._class_weights is None:
            return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        return weighted_cross_entropy(logits.float(), labels, self._class_weights, smoothing)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights towards the trained ones.

        The decay grows from step to step up to `ema_decay`, so that the initial weights are soon forgotten.
        """
        if self._averaged is None:
            return
        self._num_updates += 1
        decay = min(self.config.ema_decay, self._num_updates / (self._num_updates + 9))
        torch._foreach_lerp_(*self._averages, 1 - decay)
        torch._foreach_copy_(*self._counts)

    def _look(self, losses: list[Tensor], start: int) -> list[Tensor]:
        """Return the losses of whole batches, and check that they are finite.

        Args:
            losses: the parts that this process's shares have of the losses, one tensor for each step.
            start: the number of the first of these steps in the epoch.

        Raises:
            Diverged: a loss is not finite.
        """
        if not losses:
            return []
        whole = self.group.total(torch.stack(losses))
        bad = (~torch.isfinite(whole[:, 1])).nonzero()
        if len(bad):
            step = int(bad[0])
            raise Diverged(
                f"the training diverged: the loss is {float(whole[step, 1])} in step {start + step} of epoch "
                f"{self.epoch}; lower retrain.lr, or use more retrain.warmup_epochs"
            )
        return list(whole)

    @torch.no_grad()
    def evaluate(self, images: Images, *, mistakes: bool = False) -> Evaluation:
        """Evaluate `network` on all of `images`: its loss and its confusion matrix.

        If the training has had very few steps, batch normalisation is recalibrated for the evaluation.

        Args:
            images: the images.
            mistakes: whether the result also has the images that the network gets wrong and is surest about.
        """
        wrong = Surest(self.info)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        found = [torch.zeros(2, 0, dtype=torch.int64, device=self.device)]  # labels and predictions of each batch
        with self._settled() as recalibration_batches:
            for x, labels in self._unaugmented(images):
                if not len(labels):
                    continue
                with self._autocast():
                    logits = self.network(x)
                loss += F.cross_entropy(logits.float(), labels, reduction="sum")
                found.append(torch.stack([labels, logits.argmax(1)]))
                if mistakes:
                    wrong.see(x, labels, logits)
        truth, predicted = torch.cat(found, 1)
        counts = self.group.total(count(truth, predicted, self.info.num_classes))
        worst = surest(one for some in self.group.gathered(wrong.found) for one in some) if mistakes else ()
        return Evaluation.of(float(self.group.total(loss)) / len(images), counts, recalibration_batches, worst)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights of `network`, with the statistics with which `evaluate` scores it."""
        with torch.no_grad(), self._settled():
            return {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    @contextmanager
    def _settled(self) -> Iterator[int]:
        """Within the block `network` is in evaluation mode, with statistics that suit its weights.

        They are recalibrated if the running statistics still hold too much of their initial values.

        Yields:
            From how many batches the statistics were estimated; 0 if they are the running statistics.
        """
        share = initial_share(self._num_steps, ema_decay=self.config.ema_decay)
        passes = self._recalibration_passes() if share > MOST_INITIAL else ()
        with (
            seeded_init(self.seed, "retrain", "recalibration", "operations", self.group.rank),
            recalibrated(self.network, passes) as number,
        ):
            self.network.eval()
            yield number

    @property
    def _num_steps(self) -> int:
        """How many training steps the statistics have seen.

        A network without batch normalisation needs no recalibration: for it the number is very large.
        """
        return next((int(t) for name, t in self.network.state_dict().items() if name.endswith(_COUNT)), 10**9)

    def _recalibration_passes(self) -> Iterator[None]:
        """Make passes over training images as an evaluation does: without augmentation and without drop-path."""
        network = self.network.train()
        probability, network.drop_path = network.drop_path, 0.0
        stream = generator(self.seed, "retrain", "recalibration", device=self.device)
        batches = self._unaugmented(self.train, stream, drop_last=True)
        for images, _ in islice(batches, RECALIBRATION_BATCHES):
            with self._autocast():
                network(images)
            yield
        network.drop_path = probability

    def _unaugmented(
        self, images: Images, stream: torch.Generator | None = None, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without augmentation. Each process gets its share of them."""
        for x, labels in images.batches(
            self.config.batch_size,
            generator=stream,
            device=self.device,
            info=self.info,
            drop_last=drop_last,
            share=self.group.share,
        ):
            yield x.contiguous(memory_format=torch.channels_last), labels

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on. `torch.load(weights_only=True)` can load it safely."""
        return {
            "identity": self._identity(),
            "epoch": self.epoch,
            "trained": self._trained.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "num_updates": self._num_updates,
            "sgd": self._sgd.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": self._best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`, so that the training goes on from there.

        Raises:
            UserError: the state belongs to another genotype, configuration or seed.
        """
        theirs = state.get("identity", {})
        for name, value in self._identity().items():
            if theirs.get(name) != value:
                raise UserError(
                    f"the checkpoint belongs to another {name} ({theirs.get(name)}, this one is {value}): "
                    "resume with what it was started with"
                )
        self.epoch = state["epoch"]
        self._trained.load_state_dict(state["trained"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._num_updates = state["num_updates"]
        self._sgd.load_state_dict(state["sgd"])
        self._scaler.load_state_dict(state["scaler"])
        self._best = state["best"]

    def load_best(self) -> None:
        """Put the weights of `best_epoch` into `network`, after the training.

        Raises:
            UserError: there are no validation images, so no epoch was chosen.
        """
        if self._best is None:
            raise UserError("no best epoch: set retrain.validation_fraction above 0 and train for an epoch")
        self.network.load_state_dict(self._best["weights"])

    def _identity(self) -> dict[str, Any]:
        """Return what a state belongs to. The device and the epochs between checkpoints do not matter."""
        return {
            "configuration": config_hash(self.config, exclude=("device", "checkpoint_every")),
            "genotype": self.genotype.hash,
            "seed": self.seed,
        }
