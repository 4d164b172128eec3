"""Sets of images that stay in their files. Other processes decode the images while the device computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import decode
from ..ground.errors import UserError
from ..ground.redact import one_line
from .augment import SEEDS, Augment, Draws, apply_seeded
from .images import WHOLE, DataInfo, Images, Share, both_of, epoch_plan, normalised, some_of
from .readers import Readers

#: Evaluation sees the centre of an image whose shorter side is this much longer than the centre (256 to 224).
MARGIN = 256 / 224

#: What the readers change in single images; the rest of `Augment` is done on whole batches on the device.
READ_WITH_THE_FILE: dict[str, Any] = {"resized_crop": False, "autoaugment": False, "color_jitter": 0.0}


@dataclass(frozen=True, eq=False)
class StreamedSet:
    """Images in files. Each image is read when its batch is due.

    Args:
        readers: the processes that read the files. All subsets of a set share them.
        labels: the class of each image, int64 [number].
        positions: the place of each image in the list of files, int64 [number].
        size: the height and the width that images in batches have, in pixels.
        pictures: see `Images.pictures`.
    """

    readers: Readers
    labels: Tensor
    positions: Tensor
    size: int
    pictures: Tensor | None = None

    @classmethod
    def of(cls, files: Any, size: int, num_workers: int) -> StreamedSet:
        """Make a set of all images of some files.

        Args:
            files: a map-style data set of (PIL image, class) that has `targets` and `samples`, as torchvision's
                folders have.
            size: the height and the width that images in batches have, in pixels.
            num_workers: how many processes read and decode; with 0 this process reads. The batches do not depend on it.
        """
        labels = torch.tensor(files.targets, dtype=torch.int64)
        return cls(Readers(_Work(files), num_workers), labels, torch.arange(len(labels)), size)

    @property
    def files(self) -> Any:
        """The data set of (PIL image, class) that `positions` point into."""
        return self.readers.work.files  # type: ignore[attr-defined]  # mypy: a _Work

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int]) -> StreamedSet:
        """Return the images at these positions, in this order."""
        where = torch.as_tensor(indices, dtype=torch.int64)
        pictures = some_of(self.pictures, where)
        return StreamedSet(self.readers, self.labels[where], self.positions[where], self.size, pictures)

    def joined(self, other: Images) -> StreamedSet:
        """Return these images, followed by other images of the same files."""
        assert isinstance(other, StreamedSet) and other.readers is self.readers
        labels, positions = torch.cat([self.labels, other.labels]), torch.cat([self.positions, other.positions])
        return StreamedSet(self.readers, labels, positions, self.size, both_of(self.pictures, other.pictures))

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
        """See `Images.batches`. The readers live on after the pass, for later passes over this set and its subsets.

        Raises:
            UserError: a file cannot be read.
            ReaderDied: a reader was killed.
        """
        order, sizes = epoch_plan(len(self), batch_size, generator, augment, drop_last)
        order = torch.arange(len(self)) if order is None else order.cpu()
        seeds = None
        if augment is not None and generator is not None:
            # For the whole pass at once: what is drawn must not depend on how far ahead the readers are.
            seeds = torch.randint(SEEDS, (len(self),), generator=generator, device=generator.device).tolist()
        how = _How(self.size, info.channels, augment, isinstance(self.files, PictureFiles))
        target = torch.device(device)
        parts, start = [], 0
        for size in sizes:
            held = share.of(size)
            parts.append(order[start + held.start : start + held.stop])
            start += size
        seed_of: Any = (lambda image: None) if seeds is None else seeds.__getitem__
        questions = ((how, [(int(self.positions[image]), seed_of(image)) for image in part]) for part in parts)
        for images, part, size in zip(self.readers.answers(questions), parts, sizes, strict=True):
            draws = None if generator is None else Draws(generator, size, share.of(size), target)
            pixels = (images.pin_memory() if target.type == "cuda" else images).to(target, non_blocking=True)
            if augment is not None and draws is not None:
                pixels = replace(augment, **READ_WITH_THE_FILE).before_normalisation(pixels, draws)
            yield normalised(pixels, info, augment, draws), self.labels[part].to(target)


@dataclass(frozen=True)
class PictureFiles:
    """The files of a user's own images. An object of this class is sent to the processes that read.

    Attributes:
        root: the folder of the files.
        names: the names of the files, relative to `root`.
        targets: the class of each file.
        channels: 1 for grey images, 3 for coloured ones.
    """

    root: Path
    names: Sequence[str]
    targets: Sequence[int]
    channels: int

    @property
    def samples(self) -> Sequence[tuple[str, int]]:
        """The path and the class of each file, in the form of torchvision's folders."""
        return [(str(self.root / name), label) for name, label in zip(self.names, self.targets, strict=True)]

    def __getitem__(self, position: int) -> tuple[Any, int]:
        image = decode.upright(self.root / self.names[position])
        return image.convert("L" if self.channels == 1 else "RGB"), self.targets[position]


class _Work:
    """The work of a reader on a batch: it decodes, crops and recolours each image, by a seed of the image's own.

    Args:
        files: a map-style data set of (PIL image, class).
    """

    def __init__(self, files: Any) -> None:
        self.files = files
        self._transforms: dict[_How, Any] = {}

    def __call__(self, question: tuple[_How, Sequence[tuple[int, int | None]]]) -> Tensor:
        """Read the images of one question.

        Args:
            question: how the images are prepared, and for each image its position in the files and its seed. If the
                seed is None, nothing is drawn for that image.

        Returns:
            Images uint8 [batch, channels, size, size].

        Raises:
            UserError: a file cannot be read.
        """
        how, items = question
        if how not in self._transforms:
            self._transforms[how] = how.transform()
        transform = self._transforms[how]
        if not items:  # the share of a last batch that is smaller than the number of processes
            return torch.empty(0, how.channels, how.size, how.size, dtype=torch.uint8)
        images = []
        for position, seed in items:
            image = self._image(position)
            images.append(transform(image) if seed is None else apply_seeded(transform, image, seed))
        return torch.stack(images)

    def _image(self, position: int) -> Any:
        try:
            return self.files[position][0]
        except MemoryError:
            raise
        except Exception as error:  # Pillow has many for a file that is broken
            path = self.files.samples[position][0]
            reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))
            raise UserError(f"cannot read image {path}: {reason or type(error).__name__}") from error


@dataclass(frozen=True)
class _How:
    """How an image is prepared after it was read.

    Attributes:
        size: the height and the width that the image gets, in pixels.
        channels: 1 for grey, 3 for red, green and blue.
        augment: the random changes; None for evaluation.
        whole: whether evaluation sees the same square as if the set were in memory (a user's own images). Else it sees
            the centre of the resized image, as with ImageNet.
    """

    size: int
    channels: int
    augment: Augment | None
    whole: bool

    def transform(self) -> Any:
        """Return a transform from a picture to a uint8 tensor [channels, size, size]."""
        from torchvision.transforms import v2

        centre: list[Any] = [v2.Resize(round(self.size * MARGIN)), v2.CenterCrop(self.size)]
        if self.whole:
            centre = [partial(decode.view, channels=self.channels, size=self.size)]
        if self.augment is None:
            return v2.Compose([*centre, v2.PILToTensor()])
        return v2.Compose([*(self.augment.crops(self.size) or centre), *self.augment.colours(), v2.PILToTensor()])
