"""Training of a detector on a derived network (D-DARTS section 5.5): the loop.

`Transfer` owns no file, no tracker and no process. It yields an `EpochRecord` per epoch. Its whole state can be read
with `state_dict` and restored with `load_state_dict`. Everything random comes from stateless streams of the seed: the
order of the images, which of them are mirrored, and, through torch's global generator within a step, the size to which
images are scaled and the anchors and proposals that torchvision samples. So a training that is resumed at the end of an
epoch goes on bit for bit on a CPU. Held-out images only score.

If several processes train together (`parallel.Group`), each computes a part of every batch and scores a part of the
held-out images. The result is that of one process, except for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ..genotypes.genotype import Genotype
from ..ground.errors import Diverged, UserError
from ..loops.records import EpochRecord
from ..networks.network import Network
from ..tensors.devices import AUTOCAST, Stopwatch, check_amp, forget_peak, peak_memory, pick_device, set_float32
from ..tensors.optimisers import SGD
from ..tensors.seeding import generator, seeded_init
from ..training.parallel import ALONE, Group
from .evaluation import Answer, average_precision
from .examples import Example
from .model import build_detector
from .scan import Splits
from .settings import TransferConfig, TransferTraining, settings_hash
from .shares import Shares

#: Steps between two looks at the losses: each look waits for the GPU.
CHECK_EVERY = 20

PHASE = "transfer"


def learning_rate(training: TransferTraining, step: int, epoch: int) -> float:
    """Return the learning rate of a step.

    It is the scaled rate, multiplied by `lr_decay` once for each epoch of `lr_epochs` that is over. Within the warm-up
    it is also multiplied by a factor that grows linearly from `warmup_factor` in the first step to 1 (mmdetection's
    linear warm-up).

    Args:
        training: the settings of the training.
        step: the number of the step in the whole training, from 0.
        epoch: the number of the epoch, from 0.
    """
    rate = training.scaled_lr * training.lr_decay ** sum(epoch >= over for over in training.lr_epochs)
    if step >= training.warmup_steps:
        return rate
    grown = step / training.warmup_steps
    return rate * (training.warmup_factor + (1 - training.warmup_factor) * grown)


def _whole(examples: list[Example]) -> list[Example]:
    return examples


class Transfer:
    """One training of a detector on another task.

    Args:
        config: the settings of the training.
        genotype: the genotype of the network.
        splits: the images that train, and the images that score.
        weights: the network with trained weights. None: the training begins with random weights.
        mean: the mean of each channel by which images are normalised, of pixels in 0..1.
        std: the standard deviation of each channel.
        device: the device to train on, in place of the one in the settings.
        group: the processes that train together. Each of them builds this object with the same arguments.

    Attributes:
        epoch: the number of the next epoch, from 0.
        num_epochs: how many epochs the whole training has.
        detector: the detector of torchvision, with the network as its backbone.

    Raises:
        UserError: the network cannot be built, it has no output at a stride of the pyramid, or the device cannot do
            what is asked for.
    """

    def __init__(
        self,
        config: TransferConfig,
        genotype: Genotype,
        splits: Splits,
        weights: Network | None,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | None = None,
        group: Group = ALONE,
    ) -> None:
        self.config = config
        self.genotype = genotype
        self.splits = splits
        self.epoch = 0
        self.num_epochs = config.training.epochs
        training = config.training
        self.device = device or pick_device(training.device, "training.device")
        self.group = group
        if training.batch_size < group.count:
            raise UserError(
                f"training.batch_size {training.batch_size} leaves some of {group.count} processes no image"
            )
        check_amp(training.amp, self.device, "training.amp")
        set_float32(training.amp)
        with seeded_init(config.seed, "transfer", "detector"):
            self.detector = build_detector(config, genotype, len(splits.train.classes), weights, mean, std)
        self.detector.to(self.device)
        self._parameters = [one for one in self.detector.parameters() if one.requires_grad]
        self._shares = Shares(self.detector, group, training.batch_size)
        self._distributed = group.distribute(self.detector)
        self._sgd = SGD(
            self._parameters, lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay
        )

    # --- the loop ---------------------------------------------------------------------------------------------------

    def records(self) -> Iterator[EpochRecord]:
        """Train from the current epoch to the last, and yield one record per epoch.

        Raises:
            Diverged: a loss is not finite.
            UserError: an image cannot be read.
        """
        while not self.over:
            yield self._run_epoch()

    @property
    def over(self) -> bool:
        """Whether the last epoch is done."""
        return self.epoch >= self.num_epochs

    def _run_epoch(self) -> EpochRecord:
        epoch, training = self.epoch, self.config.training
        forget_peak(self.device)
        watch = Stopwatch(self.device)
        self._distributed.train()
        totals: dict[str, Tensor] = {}
        steps = self.steps_per_epoch
        for number, examples in enumerate(self._batches(epoch)):
            watch.lap("data")
            step = epoch * steps + number
            for group in self._sgd.param_groups:
                group["lr"] = learning_rate(training, step, epoch)
            with seeded_init(self.config.seed, "transfer", "step", step):
                losses = self._step(examples)
            for name, loss in losses.items():
                totals[name] = totals[name] + loss if name in totals else loss
            if (number + 1) % CHECK_EVERY == 0 or number + 1 == steps:
                self._look(totals, number)
            watch.lap("weights")
        metrics = {f"train/{name}": float(self.group.total(total)) / steps for name, total in sorted(totals.items())}
        self.epoch += 1
        if self.epoch % training.evaluate_every == 0 or self.epoch == self.num_epochs:
            metrics |= {f"held_out/{name}": value for name, value in self.evaluate().items()}
            watch.lap("evaluation")
        return EpochRecord(epoch, PHASE, metrics, seconds=watch.seconds(), peak_memory=peak_memory(self.device))

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has. A smaller last batch is left out."""
        training = self.config.training
        return len(self.splits.used) * training.repeat // training.batch_size

    def _batches(self, epoch: int) -> Iterator[list[Example]]:
        """Yield this process's share of each batch of an epoch.

        The images are shuffled, half of them are mirrored if `flip` is on, and objects that train nothing are left out.
        """
        training, seed = self.config.training, self.config.seed
        used = self.splits.used
        drawn = generator(seed, "transfer", "order", epoch)
        order = torch.cat([torch.randperm(len(used), generator=drawn) for _ in range(training.repeat)]).tolist()
        mirrored = torch.rand(len(order), generator=generator(seed, "transfer", "mirror", epoch)) < 0.5
        whole = self.steps_per_epoch * training.batch_size
        mine = self.group.share.of(training.batch_size)
        places = [
            begin + place for begin in range(0, whole, training.batch_size) for place in range(mine.start, mine.stop)
        ]
        chosen = Subset(self.splits.train, [used[order[place]] for place in places])
        flips = iter(mirrored[places].tolist())
        for examples in self._loader(chosen, mine.stop - mine.start):
            yield [
                (one.mirrored() if next(flips) and training.flip else one)
                for one in (example.of_training() for example in examples)
            ]

    def _loader(self, images: Any, batch_size: int) -> DataLoader[Example]:
        """Return a loader that reads images in their order. Nothing random happens in the processes that read."""
        loader: DataLoader[Example] = DataLoader(
            images,
            batch_size,
            num_workers=self.config.data.num_workers,
            collate_fn=_whole,
            generator=torch.Generator(),
        )
        return loader

    def _step(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Do one SGD step on this process's share of a batch.

        Returns:
            The share's part of the batch's losses by name, and the sum of these parts as `loss`.
        """
        images = [example.image.to(self.device).float() / 255 for example in examples]
        with self._autocast():
            losses: dict[str, Tensor] = self._distributed(images, [self._target(example) for example in examples])
        parts = self._shares.of_batch(losses)
        loss = torch.stack([*parts.values()]).sum()
        self._sgd.zero_grad(set_to_none=True)
        (self.group.count * loss).backward()  # type: ignore[no-untyped-call]  # torch
        if self.config.training.grad_clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.config.training.grad_clip)
        self._sgd.step()
        return {"loss": loss.detach(), **{_short(name): part.detach() for name, part in parts.items()}}

    def _target(self, example: Example) -> dict[str, Tensor]:
        """Return the target of an image as torchvision's detectors take it. Mask R-CNN's label 0 is the background."""
        first = 0 if example.masks is None else 1
        target = {"boxes": example.boxes, "labels": example.labels + first}
        if example.masks is not None:
            target["masks"] = example.masks
        return {name: value.to(self.device) for name, value in target.items()}

    def _autocast(self) -> torch.autocast:
        amp = self.config.training.amp
        return torch.autocast(self.device.type, AUTOCAST.get(amp, torch.bfloat16), enabled=amp in AUTOCAST)

    def _look(self, totals: dict[str, Tensor], number: int) -> None:
        if not torch.isfinite(self.group.total(totals["loss"])):
            raise Diverged(
                f"the training diverged: the loss is not finite in epoch {self.epoch}, within {CHECK_EVERY} steps "
                f"before step {number + 1}; lower training.lr, or use more training.warmup_steps"
            )

    # --- scores -----------------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Compute the average precision on all held-out images; see `evaluation.average_precision`."""
        images = range(len(self.splits.held_out))
        return average_precision(self.answers(images[self.group.share.of(len(images))]), self.group)

    @torch.no_grad()
    def answers(self, indices: Sequence[int]) -> Iterator[Answer]:
        """Yield what the detector, as it is now, finds in held-out images, one image after the other."""
        self.detector.eval()
        masks = self.config.task == "cityscapes-instances"
        for (example,) in self._loader(Subset(self.splits.held_out, [*indices]), 1):
            with self._autocast():
                (found,) = self.detector([example.image.to(self.device).float() / 255])
            found = {name: value.float().cpu() for name, value in found.items()}
            yield Answer(
                example,
                found["boxes"],
                found["labels"].long() - (1 if masks else 0),
                found["scores"],
                (found["masks"][:, 0] >= 0.5) if masks else None,
            )

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "settings": settings_hash(self.config),
            "genotype": self.genotype.hash,
            "images": [len(self.splits.used), len(self.splits.held_out)],
            "listings": self.splits.listings,
            "epoch": self.epoch,
            "detector": self.detector.state_dict(),
            "sgd": self._sgd.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`, so that the training goes on from there.

        Raises:
            UserError: the state belongs to other settings, another genotype or other images.
        """
        if state["settings"] != settings_hash(self.config) or state["genotype"] != self.genotype.hash:
            raise UserError("the checkpoint was made with other settings or another genotype: go on with the same")
        if state["images"] != (found := [len(self.splits.used), len(self.splits.held_out)]):
            raise UserError(
                f"the checkpoint was made with {' and '.join(map(str, state['images']))} images that train and that "
                f"score, and now there are {' and '.join(map(str, found))}: go on with the same images"
            )
        if state.get("listings", self.splits.listings) != self.splits.listings:  # earlier versions kept none
            raise UserError(
                "the checkpoint was made with other images (names, sizes, objects or classes of some have changed): "
                "go on with the same"
            )
        self.epoch = state["epoch"]
        self.detector.load_state_dict(state["detector"])
        self._sgd.load_state_dict(state["sgd"])


def _short(name: str) -> str:
    """Turn a name like `loss_box_reg` into `box_reg_loss`, so that the names of all losses end alike."""
    return f"{name.removeprefix('loss_')}_loss"
