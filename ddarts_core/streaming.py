"""Sets of images that stay in their files: worker processes decode them while the device computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .augment import SEEDS, Augment, Draws, apply_seeded
from .images import WHOLE, DataInfo, Images, Share, epoch_plan, normalised

#: Evaluation sees the centre of an image whose shorter side is this much longer than the centre (256 to 224).
MARGIN = 256 / 224

#: What the workers change in single images; the rest of `Augment` is done on whole batches on the device.
READ_WITH_THE_FILE: dict[str, Any] = {"resized_crop": False, "autoaugment": False, "color_jitter": 0.0}


@dataclass(frozen=True, eq=False)
class StreamedSet:
    """Images in files, each read when its batch is due.

    Args:
        files: a map-style data set of (PIL image, class).
        labels: int64 [number].
        positions: place in `files` of each image, int64 [number].
        size: height and width that batches have, in pixels.
        num_workers: processes that read and decode; 0 reads in this process. The batches do not depend on it.
    """

    files: Any
    labels: Tensor
    positions: Tensor
    size: int
    num_workers: int
    _loaders: dict[Augment | None, _Loader] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int]) -> StreamedSet:
        """The images at these positions, in this order."""
        where = torch.as_tensor(indices, dtype=torch.int64)
        return StreamedSet(self.files, self.labels[where], self.positions[where], self.size, self.num_workers)

    def joined(self, other: Images) -> StreamedSet:
        """These images, then others of the same files."""
        assert isinstance(other, StreamedSet) and other.files is self.files
        labels, positions = torch.cat([self.labels, other.labels]), torch.cat([self.positions, other.positions])
        return StreamedSet(self.files, labels, positions, self.size, self.num_workers)

    def batches(
        self,
        batch_size: int,
        *,
        info: DataInfo,
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
        augment: Augment | None = None,
        drop_last: bool = False,
        share: Share = WHOLE,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Images.batches`. The worker processes live on after the pass, for the next one with `augment`."""
        order, sizes = epoch_plan(len(self), batch_size, generator, augment, drop_last)
        order = torch.arange(len(self)) if order is None else order.cpu()
        seeds = None
        if augment is not None and generator is not None:
            # For the whole pass at once: what is drawn must not depend on how far ahead the workers read.
            seeds = torch.randint(SEEDS, (len(self),), generator=generator, device=generator.device).tolist()
        if augment not in self._loaders:
            reader = _Reader(self.files, self.size, augment, info.channels)
            self._loaders[augment] = _Loader(reader, self.num_workers)
        target = torch.device(device)
        parts, start = [], 0
        for size in sizes:
            held = share.of(size)
            parts.append(order[start + held.start : start + held.stop])
            start += size
        plan = [
            [(int(self.positions[image]), None if seeds is None else seeds[image]) for image in part] for part in parts
        ]
        for images, part, size in zip(self._loaders[augment].read(plan), parts, sizes, strict=True):
            draws = None if generator is None else Draws(generator, size, share.of(size), target)
            pixels = images.to(target, non_blocking=True)
            if augment is not None and draws is not None:
                pixels = replace(augment, **READ_WITH_THE_FILE).before_normalisation(pixels, draws)
            yield normalised(pixels, info, augment, draws), self.labels[part].to(target)


class _Loader:
    """torch's loader with workers that stay, told before each pass what to read."""

    def __init__(self, reader: _Reader, num_workers: int) -> None:
        self.plan: list[list[tuple[int, int | None]]] = []
        self.loader: DataLoader[Tensor] = DataLoader(
            reader,
            batch_sampler=self,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else every pass would draw from the global one
        )

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)

    def read(self, plan: list[list[tuple[int, int | None]]]) -> Iterator[Tensor]:
        """Images uint8 [batch, channels, size, size] of every batch of (position, seed)."""
        self.plan = plan
        return iter(self.loader)


def _as_it_is(batch: Any) -> Any:
    return batch


class _Reader(Dataset[Tensor]):
    """What a worker does with a batch: decode, crop, and change the colours, each image by a seed of its own."""

    def __init__(self, files: Any, size: int, augment: Augment | None, channels: int) -> None:
        from torchvision.transforms import v2

        self.files = files
        self.none = torch.empty(0, channels, size, size, dtype=torch.uint8)
        centre = [v2.Resize(round(size * MARGIN)), v2.CenterCrop(size)]
        if augment is None:
            self.transform = v2.Compose([*centre, v2.PILToTensor()])
        else:
            self.transform = v2.Compose([*(augment.crops(size) or centre), *augment.colours(), v2.PILToTensor()])

    def __getitems__(self, items: Sequence[tuple[int, int | None]]) -> Tensor:
        """Images of (position, seed); no seed: nothing is drawn."""
        if not items:  # the share of a last batch that is smaller than the number of processes
            return self.none
        images = []
        for position, seed in items:
            image, _ = self.files[position]
            images.append(self.transform(image) if seed is None else apply_seeded(self.transform, image, seed))
        return torch.stack(images)
