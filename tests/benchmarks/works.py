"""The steps that are measured: the literal textbook transcription and ours, on the same weights and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import ImageSet
from ddarts_core.data.splits import Splits
from ddarts_core.estimates.memory import Rehearsal, rehearsals
from ddarts_core.search.search import Search
from ddarts_core.search.stages import Course
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.supernets.contributions import ablated_losses, ablated_losses_and_gradient, random_gates
from ddarts_core.supernets.execution import Execution, choose, run_as
from ddarts_core.supernets.supernet import CellNotes, Supernet, batch_statistics, frozen
from ddarts_core.tensors.devices import set_float32
from tests.core import textbook

#: A step, ready to run again and again.
Step = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """What is searched: the issue's goals are for the defaults."""

    cells: int = 8
    channels: int = 16
    image: int = 32
    batch: int = 64
    device: str = "cpu"
    nodes: int = 4

    def config(self, *overrides: str) -> ExperimentConfig:
        """The experiment of a shape."""
        search = {"num_cells": self.cells, "channels": self.channels, "batch_size": self.batch}
        search |= {"device": self.device, "steps": self.nodes}
        data = {"name": "cifar10", "image_size": self.image, "crop_padding": 4, "flip": True, "cutout": 16}
        return resolve({"search": search, "data": data}, overrides)

    @property
    def info(self) -> DataInfo:
        """Of CIFAR-10 at the shape's size."""
        return DataInfo("cifar10", 10, 3, self.image, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))

    def batch_of(self, layout: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        images = torch.randn(self.batch, 3, self.image, self.image, device=self.device)
        return images.contiguous(memory_format=layout), torch.arange(self.batch, device=self.device) % 10


def _placed(shape: Shape, net: Supernet, layout: torch.memory_format) -> Supernet:
    """On the device, in a layout; `Module.to` would do but for tensors without contents."""
    for module in net.modules():
        for name, weight in module.named_parameters(recurse=False):
            placed = weight.detach().to(shape.device)
            setattr(
                module, name, nn.Parameter(placed.contiguous(memory_format=layout) if weight.dim() == 4 else placed)
            )
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(shape.device))
    return net.train()


def textbook_net(shape: Shape) -> tuple[Supernet, list[nn.Parameter]]:
    """The supernet in torch's own layout, as written, and one tensor of alphas per cell."""
    torch.manual_seed(0)
    net = _placed(shape, Supernet(shape.config().search, shape.info), torch.contiguous_format)
    edges = (len(net.cells[0].edges), len(net.cells[0].names))
    return net, [nn.Parameter(torch.zeros(edges, device=shape.device)) for _ in net.cells]


def textbook_alpha_step(shape: Shape) -> tuple[nn.Module, Step]:
    """The published alpha step, as in `textbook.published_steps`: n + 2 forward passes, n backward passes."""
    net, alphas = textbook_net(shape)
    images, labels = shape.batch_of()

    def gates() -> list[Tensor]:
        return [torch.sigmoid(alpha) for alpha in alphas]

    def step() -> None:
        with torch.no_grad():
            F.cross_entropy(textbook.forward(net, images, gates()), labels)
            for i, alpha in enumerate(alphas):
                replaced = {i: textbook.with_gates(torch.rand_like(alpha))}
                F.cross_entropy(textbook.forward(net, images, gates(), replaced), labels)
        logits = textbook.forward(net, images, gates())
        for alpha in alphas:
            sigma = torch.sigmoid(alpha)
            loss = F.cross_entropy(logits, labels) - F.mse_loss(sigma, torch.full_like(sigma, 0.5))
            loss.backward(retain_graph=True)
            alpha.grad = None

    return net, step


def textbook_weight_step(shape: Shape) -> tuple[nn.Module, Step]:
    """The published weight step, as in `textbook.published_steps`: alphas are differentiated too."""
    net, alphas = textbook_net(shape)
    images, labels = shape.batch_of()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)

    def step() -> None:
        F.cross_entropy(textbook.forward(net, images, [torch.sigmoid(a) for a in alphas]), labels).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        sgd.step()
        sgd.zero_grad()

    return net, step


def our_net(shape: Shape, *overrides: str) -> tuple[Supernet, Tensor, Execution]:
    """The supernet as a search runs it, alphas, and how it runs."""
    torch.manual_seed(0)
    config = shape.config(*overrides)
    execution = choose(config, torch.device(shape.device))
    net = _placed(shape, Supernet(config.search, shape.info), execution.layout)
    run_as(net, execution, torch.device(shape.device).type)
    alphas = torch.zeros(net.num_groups, len(net.cells[0].edges), len(net.cells[0].names), device=shape.device)
    return net, alphas, execution


def _begin(execution: Execution) -> None:
    """As a search begins a step; the precision of float32 is the process's, and rounds of options are interleaved."""
    set_float32(execution.float32)
    execution.begin_step()


def our_alpha_step(shape: Shape, ablation: str, removal: str, *overrides: str) -> tuple[nn.Module, Step]:
    """`AlphaStep` without its bookkeeping: the full pass, its gradient, and what `ablation` adds."""
    net, start, execution = our_net(shape, *overrides)
    images, labels = shape.batch_of(execution.layout)
    groups = list(range(net.num_groups))

    def step() -> None:
        _begin(execution)
        alphas = start.clone().requires_grad_()
        with batch_statistics(net), frozen(net):
            gates = alphas.sigmoid()
            notes = [CellNotes() for _ in net.cells] if ablation == "monitor" else None
            outputs = net.outputs(images, gates, notes)
            loss = F.cross_entropy(net.logits(outputs[-1]), labels)
            torch.autograd.grad(loss, alphas)
            stream = torch.Generator(images.device)
            draws = len(groups) if removal == "random" and ablation != "none" else 0
            noise = [random_gates(net, gates.detach(), stream) for _ in range(draws)]
            if ablation == "monitor":
                ablated_losses(net, outputs, gates.detach(), labels, groups, removal, noise, notes)
            elif ablation == "centered":
                _, through = ablated_losses_and_gradient(net, outputs, gates, labels, groups, removal, noise)
                torch.autograd.grad(alphas.sigmoid(), alphas, through)

    return net, step


def our_forward_pass(shape: Shape) -> tuple[nn.Module, Step]:
    """Logits of one batch, no gradients: the unit in which ablations are counted."""
    net, alphas, execution = our_net(shape)
    images, _ = shape.batch_of(execution.layout)
    return net, torch.no_grad()(lambda: net(images, alphas.sigmoid()))


def our_weight_step(shape: Shape, *overrides: str) -> tuple[nn.Module, Step]:
    """`Search._weight_step`."""
    net, alphas, execution = our_net(shape, *overrides)
    images, labels = shape.batch_of(execution.layout)
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)

    def step() -> None:
        _begin(execution)
        F.cross_entropy(net(images, alphas.sigmoid()), labels).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        sgd.step()
        sgd.zero_grad()

    return net, step


def textbook_full_step(shape: Shape) -> tuple[nn.Module, Step]:
    """The published alpha step, then its weight step."""
    return _both(textbook_alpha_step(shape), textbook_weight_step(shape))


def method_step(shape: Shape, method: str) -> tuple[nn.Module, Step]:
    """An alpha step and a weight step of a method's first network, at the shape where the method leaves it open."""
    preset = resolve({"method": method}).search
    search: dict[str, Any] = {"channels": shape.channels, "batch_size": shape.batch, "device": shape.device}
    if preset.start is None:
        search |= {"num_cells": shape.cells, "steps": shape.nodes}
    if preset.stages == "widening":  # the published sixth does not divide the shape's channels
        search["options"] = {"channel_share": 4, "channel_shares": [4, 4]}
    config, keep = rehearsals(resolve({"method": method, "search": search}))[0]
    rehearsal = Rehearsal(config, shape.info, torch.device(shape.device), keep)
    trains = any(stage.trains_alphas and stage.by_gradient for stage in Course(config).stages)

    def step() -> None:
        if trains:
            rehearsal.alpha_step()
        rehearsal.weight_step()

    return rehearsal.net, step


def plain_darts(shape: Shape) -> tuple[nn.Module, Step, Step]:
    """First-order DARTS as a plain loop, in torch's own layout: the supernet, its alpha step and its weight step.

    Adam's step of the few alphas is left out, here and in `our_darts`. Softmax gates of two cells, every operation on
    every edge one after the other, and one backward pass per step, which gives gradients of alphas and weights alike.
    """
    torch.manual_seed(0)
    net = _placed(shape, Supernet(_darts(shape).search, shape.info), torch.contiguous_format)
    size = (len(net.cells[0].edges), len(net.cells[0].names))
    alphas = [nn.Parameter(torch.zeros(size, device=shape.device)) for _ in ("normal", "reduction")]
    images, labels = shape.batch_of()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)

    def backward() -> None:
        gates = [alphas[int(cell.reduction)].softmax(-1) for cell in net.cells]
        F.cross_entropy(textbook.forward(net, images, gates), labels).backward()

    def alpha_step() -> None:
        for alpha in alphas:
            alpha.grad = None
        backward()

    def weight_step() -> None:
        sgd.zero_grad()
        backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        sgd.step()

    return net, alpha_step, weight_step


def our_darts(shape: Shape) -> tuple[nn.Module, Step, Step]:
    """The same as a search runs it."""
    torch.manual_seed(0)
    rehearsal = Rehearsal(_darts(shape), shape.info, torch.device(shape.device))
    images, labels = shape.batch_of(torch.channels_last)
    rehearsal.images, rehearsal.labels = images, labels
    return rehearsal.net, rehearsal.alpha_step, rehearsal.weight_step


def _darts(shape: Shape) -> ExperimentConfig:
    search = {"num_cells": shape.cells, "channels": shape.channels, "batch_size": shape.batch, "steps": shape.nodes}
    return resolve({"method": "darts", "search": search | {"device": shape.device, "lr": 1e-3}})


def our_iteration(shape: Shape, ablation: str, removal: str) -> tuple[nn.Module, Step]:
    """An alpha step with an ablation, then a weight step."""
    return _both(our_alpha_step(shape, ablation, removal), our_weight_step(shape))


def _both(first: tuple[nn.Module, Step], second: tuple[nn.Module, Step]) -> tuple[nn.Module, Step]:
    def step() -> None:
        first[1]()
        second[1]()

    return nn.ModuleList([first[0], second[0]]), step


# --- epochs ---------------------------------------------------------------------------------------------------------


def _images(shape: Shape, steps: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    size = (steps * shape.batch, 3, shape.image, shape.image)
    images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(len(images)) % 10)


def our_epoch(shape: Shape, steps: int) -> Step:
    """`Search` over so many steps, `monitor`, random removal: augmentation, held-out loss and genotype included."""
    config = shape.config("ablation.loss=monitor", "ablation.removal=random", "search.epochs=10000")
    images = _images(shape, steps)
    search = Search(config, shape.info, Splits(images, images, _images(shape, 1)))
    records = search.records()
    return lambda: next(records)


def textbook_epoch(shape: Shape, steps: int) -> Step:
    """The published loop: torchvision's transforms image by image, a new iterator of the alpha split at every step.

    The published code starts four worker processes each time; none are started here, which flatters it.
    """
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    info = shape.info
    images = _images(shape, steps)
    augment = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(shape.image, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(info.mean, info.std),
        ]
    )

    class Published(Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return augment(images.images[index]), int(images.labels[index])

    weights, alphas = (DataLoader(Published(), shape.batch, shuffle=True) for _ in range(2))
    net, start = textbook_net(shape)
    (held_out,) = _images(shape, 1).batches(
        shape.batch, generator=None, device=torch.device(shape.device), info=info, drop_last=True
    )

    def step() -> None:
        current = torch.stack([alpha.detach() for alpha in start])
        for x, y in weights:
            batches = [((next(iter(alphas))), (x, y))]
            batches = [tuple((x.to(shape.device), y.to(shape.device)) for x, y in pair) for pair in batches]
            draws = [[torch.rand_like(alpha) for alpha in current]]
            settings = {"w_zero_one": 1.0, "w_ablation": 0.5, "alpha_lr": 3e-3, "alpha_decay": 1.1e-4}
            current, _ = textbook.published_steps(
                net, current, batches, draws, **settings, lr=5e-3, momentum=0.9, decay=3e-4, clip=5.0
            )
        with torch.no_grad():
            F.cross_entropy(textbook.forward(net.eval(), held_out[0], list(current.sigmoid())), held_out[1])

    return step
