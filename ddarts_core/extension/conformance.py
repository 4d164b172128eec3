"""The laws that every entry of a table must keep, as functions that raise `Broken`.

The tests of this package call the same functions. `laws` yields the laws of everything that a plug-in registered, for
`ddarts check-plugin`.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from ..data.images import DataInfo
from ..genotypes.genotype import Cell, Edge, Genotype
from ..genotypes.spaces import S_NONE, SPACES, num_edges
from ..ground.redact import one_line
from ..methods import EDGES, GATES, RULES, ablation_losses, network_of
from ..methods.parts import Ablation, Contributions, Parameters, Progress
from ..networks.network import Network
from ..networks.operations import build
from ..search.alpha_step import AlphaStep
from ..search.architecture import Architecture
from ..search.discretise import discretise
from ..search.search import Search, build_search
from ..search.stages import Course
from ..settings.config import ExperimentConfig, resolve
from ..settings.search_settings import AblationConfig, DiscretiseConfig, SearchConfig
from ..supernets.searched import SearchedNetwork
from ..supernets.supernet import Supernet, batch_statistics
from ..tensors.optimisers import SGD
from .data_laws import gives_its_images, states_its_facts
from .law import Broken, Laws, hold
from .registry import Registry

#: Images that the laws compute with: small, and with two channels.
IMAGES = DataInfo("x", num_classes=4, channels=2, image_size=8, mean=(0.5,), std=(0.5,))


#: A small space of blocks with a decision of every kind but the resolution; not all have as many options.
FEW_BLOCKS: list[dict[str, Any]] = [
    {"channels": [4, 6, 8], "stride": 2},
    {"channels": [4, 8], "middle": [6, 24], "squeeze": [False, True], "activation": ["relu", "hswish"]},
    {"channels": [8], "kernel": [3, 5], "expand": False},
]


@dataclass(frozen=True)
class Law:
    """A law that an entry must keep.

    Attributes:
        entry: the kind and the name of the entry.
        text: the law, in a few words.
        check: a function that raises `Broken` if the entry breaks the law, or any error of the entry's own code.
    """

    entry: str
    text: str
    check: Callable[[], None]


def laws(registry: Registry, above: Mapping[str, Laws] = MappingProxyType({})) -> Iterator[Law]:
    """Yield the laws of everything that a plug-in registered, in the order of the kinds.

    Args:
        registry: what the plug-in registered.
        above: the laws of kinds of entries that only a package above this one knows.
    """
    for kind, of_kind in {**LAWS, **above}.items():
        for name in registry.names.get(kind, ()):
            yield from (Law(f"{kind} {name}", text, partial(check, name)) for text, check in of_kind)


def unlawful(law: Law) -> str | None:
    """Check a law, and say in one sentence how the entry breaks it; None if the entry keeps it.

    What the entry prints goes to standard error.
    """
    try:
        with redirect_stdout(sys.stderr):
            law.check()
    except Broken as broken:
        return str(broken)
    except Exception as error:  # of the entry's own code
        return one_line(f"{type(error).__name__}: {error}")[:300]
    return None


# --- operations -----------------------------------------------------------------------------------------------------


def shapes(name: str) -> None:
    """Check that an operation keeps the number of channels, and at stride 2 halves height and width, rounded up."""
    for stride in (1, 2):
        for channels, height, width in ((8, 8, 8), (16, 7, 9)):
            found = tuple(build(name, channels, stride, False).eval()(torch.rand(2, channels, height, width)).shape)
            wanted = (2, channels, -(-height // stride), -(-width // stride))
            hold(found == wanted, f"stride {stride} makes {list(found)} of [2, {channels}, {height}, {width}]")


def no_weights_without_affine(name: str) -> None:
    """Check that without `affine` no normalisation of an operation has weights, which would hide what a gate says."""
    for stride in (1, 2):
        norms = [module for module in build(name, 8, stride, False).modules() if isinstance(module, _NormBase)]
        hold(not any(norm.affine for norm in norms), f"at stride {stride} a normalisation has weights all the same")


def trains(name: str) -> None:
    """Check that a genotype with an operation can be written, read and trained, with finite gradients."""
    cell = Cell((Edge(2, 0, name), Edge(2, 1, "skip_connect"), Edge(3, 2, name)), concat=(2, 3))
    genotype = Genotype.from_text(Genotype((cell,) * 3, reductions=(1, 2)).to_json())
    network = Network(genotype, channels=4, num_classes=5, in_channels=1, image_size=8)
    logits = network(torch.randn(3, 1, 8, 8))
    logits.square().sum().backward()
    hold(tuple(logits.shape) == (3, 5), f"the network's logits are {list(logits.shape)}, not [3, 5]")
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    hold(all(bool(gradient.isfinite().all()) for gradient in gradients), "a gradient of a weight is not finite")


def leaves_no_trace(name: str) -> None:
    """Check that a pass that only measures, with the statistics of the batch, changes no state of an operation."""
    for stride in (1, 2):
        op = build(name, 8, stride, False).train()
        before = copy.deepcopy(op.state_dict())
        with batch_statistics(op), torch.no_grad():
            op(torch.rand(4, 8, 8, 8))
        moved = [key for key, value in op.state_dict().items() if not torch.equal(value, before[key])]
        hold(not moved, f"at stride {stride} it moved {', '.join(moved)}")


# --- spaces and rules -----------------------------------------------------------------------------------------------


def is_searched_and_discretised(name: str) -> None:
    """Check that in a space the gate of every operation gets a gradient, and that each operation can be found."""
    operations = SPACES[name]
    net = Supernet(SearchConfig(space=name, num_cells=3, channels=4, steps=2), IMAGES)
    generator = torch.Generator().manual_seed(0)
    gates = torch.rand(net.num_groups, num_edges(2), len(operations), generator=generator).requires_grad_()
    net(torch.randn(4, IMAGES.channels, 8, 8, generator=generator), gates).logsumexp(1).sum().backward()
    real = [k for k, operation in enumerate(operations) if operation != "none"]
    # The last node's gates reach the output of every space; the zero operation has no gradient.
    reached = gates.grad is not None and bool((gates.grad[-1, -1, real] != 0).any())
    hold(reached, "no gate of the last node has a gradient")
    for k, operation in enumerate(operations):
        chosen = torch.zeros(3, num_edges(2), len(operations))
        chosen[:, :, k] = 0.95
        genotype = Genotype.narrowed(discretise(chosen, DiscretiseConfig(), name, 2, (1, 2)).genotype)
        found = {edge.op for cell in genotype.cells for edge in cell.edges}
        right = "none" not in found if operation == "none" else found == {operation}
        hold(right, f"gates of {operation} alone give {', '.join(sorted(found))}")


def gives_a_genotype(name: str) -> None:
    """Check that a rule keeps as many operations of an edge as it states.

    The genotype that the rule gives must also be the same after it was written and read.
    """
    gates = torch.rand(3, num_edges(4), 7, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.88
    genotype = Genotype.narrowed(discretise(gates, DiscretiseConfig(rule=name), "S", 4, (1, 2)).genotype)
    pairs = [(edge.target, edge.source) for edge in genotype.cells[0].edges]
    most, stated = max(map(pairs.count, pairs)), RULES[name].most_operations or 7
    hold(most == stated, f"it keeps up to {most} operations of an edge, and states {stated} (most_operations)")
    hold(Genotype.from_text(genotype.to_json()) == genotype, "its genotype is another one after it was written")


# --- parts ----------------------------------------------------------------------------------------------------------


def opens_one_gate(name: str) -> None:
    """Check that an edge with one open gate computes that operation: so a genotype stands for what was searched."""
    torch.manual_seed(0)
    edge = EDGES[name](SearchConfig(gates="softmax", w_zero_one=0.0))
    mixed = edge.build((*S_NONE, *edge.extra), 4, 2).eval()
    x = torch.randn(2, 4, 6, 6)
    for k, operation in enumerate(S_NONE):
        gates = F.one_hot(torch.tensor(k), len(S_NONE) + len(edge.extra)).float()
        alike = torch.allclose(mixed(x, gates), mixed.ops[k](x), atol=1e-6)  # type: ignore[operator,index]  # ModuleList
        hold(alike, f"with the gate of {operation} open alone it computes something else")


# --- methods --------------------------------------------------------------------------------------------------------


def small(name: str, *overrides: str) -> ExperimentConfig:
    """Return the settings of a search by a method in a few steps, on a network as small as the method allows.

    If the method goes through several networks, the search has three.

    Args:
        name: the name of the method.
        overrides: texts `PATH=VALUE` that change settings.
    """
    search: dict[str, Any] = {"channels": 4, "batch_size": 12, "epochs": 2, "warmup_epochs": 1, "device": "cpu"}
    method: ExperimentConfig = resolve({"method": name})
    preset = method.search
    if preset.start is None:  # Shapley values take a pass for every operation of every edge
        search |= {"num_cells": 4 if GATES[preset.gates](preset).has_links else 3}
        search |= {"steps": 1 if preset.stages == "shapley" else 2}
    if preset.stages == "progressive":
        search |= {"epochs": 3, "warmup_epochs": 3, "options": {"added_cells": [0, 1, 2]}}
    if preset.stages == "widening":
        search["options"] = {"channel_share": 2, "channel_shares": [2, 4]}
    if preset.stages == "perturbation":
        search["options"] = {"decision_batches": 1}
    few: dict[str, Any] = {"attack_steps": 2, "freeze_every": 2, "value_orders": 2, "path_steps": 2, "derived_cells": 3}
    few |= {"blocks": FEW_BLOCKS, "resolutions": [1], "hidden": 0}
    if options := {key: value for key, value in few.items() if key in preset.options}:
        search["options"] = options
    settings = {"method": name, "data": {"num_train": 60}, "search": search, "alpha": {"lr": 0.05}}
    if preset.start is not None:  # a published network, of as many cells as it has
        settings["ablation"] = {"sample_cells": 2}
    return resolve(settings, overrides)


def equal(first: Any, second: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def goes_on(name: str, make: Callable[[ExperimentConfig], Search] = build_search) -> None:
    """Check that from the state after any epoch a search goes on, bit for bit, as if it had not been stopped.

    It follows that the same seed gives the same records, and that no change of stage depends on anything outside the
    state.

    Args:
        name: the name of the method.
        make: a function that builds the search from its settings.
    """
    search = make(small(name))
    states, records = [copy.deepcopy(search.state_dict())], []
    for record in search.records():
        records.append(record)
        states.append(copy.deepcopy(search.state_dict()))
    hold([record.epoch for record in records] == list(range(search.num_epochs)), "its records are not one per epoch")
    for record in records:
        bad = [key for key, value in record.metrics.items() if not math.isfinite(value)]
        hold(not bad, f"{', '.join(bad)} is not finite after epoch {record.epoch}")
    for epoch, record in enumerate(records):
        again = make(small(name))
        again.load_state_dict(states[epoch])
        hold(next(again.records()) == record, f"its record of epoch {epoch} is another one after a stop")
        hold(equal(again.state_dict(), states[epoch + 1]), f"its state after epoch {epoch} is another one after a stop")
    found = search.discretise().genotype
    hold(again.discretise().genotype == found, "its genotype is another one after a stop")
    layout = network_of(search.config.search).layout
    hold(found.layout == layout, f"its genotype has the layout {found.layout}, not {layout}")
    trained = not equal(search.parameters, states[0]["architecture"])
    stated = any(stage.trains_alphas for stage in search.course.stages)
    hold(trained == stated, f"its stages {'train' if stated else 'do not train'} alphas, which did not happen so")


def stated_loss(
    net: SearchedNetwork,
    batch: tuple[Tensor, Tensor],
    architecture: Architecture,
    parameters: Parameters,
    progress: Progress,
) -> Tensor:
    """Return the loss that a method states: cross entropy plus its weighted terms.

    If a regulariser is one loss of the whole network, a term is the mean over the groups (`Network.one_loss`).
    """
    architecture.begin(net, progress)
    with batch_statistics(net), torch.no_grad():
        value = F.cross_entropy(net(batch[0], architecture.gates(parameters, progress)), batch[1])
    return value + sum(term.sum() / architecture.share for term in architecture.values(parameters, progress).values())


def _progress(seed: int = 1) -> Progress:
    def draw(steps: int = 1) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    return Progress(3, 8, 3, 8, "alphas", draw, draw)


def follows_its_gradient(name: str) -> None:
    """Check that the gradient of the alphas is that of the loss that the method states, in the middle of each stage.

    The loss is cross entropy plus every weighted term. The gradient is compared with central differences in float64. If
    gates are drawn at random, the gradient is mostly just an estimate by definition. Then this check knows no law.
    """
    config = small(
        name, "ablation.loss=none", "alpha.grad_mode=clean", "search.order=first", "ablation.removal=identity"
    )
    course = Course(config)
    for number, stage in enumerate(course.stages):
        if not stage.trains_alphas or stage.kept is not None:
            continue
        torch.manual_seed(0)
        net = network_of(course.settings(number).search).build(IMAGES).double().train()
        x, y = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.arange(6) % 4
        step, weights = AlphaStep(net, course.settings(number)), SGD(net.parameters(), lr=0.1)
        architecture, progress = step.architecture, _progress()
        start = {key: torch.randn(value.shape, dtype=torch.float64) for key, value in architecture.parameters().items()}
        drawn = not torch.equal(architecture.gates(start, progress), architecture.gates(start, _progress(2)))
        if drawn and not architecture.exact:
            return
        architecture.begin(net, progress)
        found = step.gradients(start, (x, y), (x, y), weights, torch.Generator(), progress).gradients
        hold(found.keys() == start.keys(), f"there are gradients of {', '.join(found)}, not of {', '.join(start)}")
        for key in start:
            direction = torch.randn_like(start[key])
            ends = [
                stated_loss(net, (x, y), architecture, {**start, key: start[key] + sign * 1e-6 * direction}, progress)
                for sign in (1, -1)
            ]
            expected = float(ends[0] - ends[1]) / 2e-6
            slope = float((found[key] * direction).sum())
            near = math.isclose(slope, expected, rel_tol=1e-4, abs_tol=1e-7)
            hold(near, f"the gradient of {key} gives a slope of {slope:.6g}, the loss {expected:.6g}")


def keeps_weights_from_alpha_steps(name: str, make: Callable[[ExperimentConfig], Search] = build_search) -> None:
    """Check that a step of the alphas changes neither weights nor statistics and leaves no gradients of weights.

    A method with the published accumulation of gradients (D-DARTS' code) is not checked.
    """
    config = small(name)
    if config.alpha.grad_mode == "published":
        return
    search = make(config)
    search.epoch = search.num_epochs - 1
    before = copy.deepcopy(search.net.state_dict())
    batches = search._alpha_batches(0)
    search._alpha_step(next(batches), next(batches), search.epoch, 0)
    hold(equal(dict(search.net.state_dict()), dict(before)), "a step of the alphas changed weights or statistics")
    hold(all(weight.grad is None for weight in search.net.parameters()), "a step of the alphas left gradients")


# --- ablation losses --------------------------------------------------------------------------------------------------


def measured() -> tuple[Contributions, Tensor, Tensor]:
    """Return contributions of four groups, one of which was not measured, and g and H for parameters [4, 5, 7]."""
    marginal = torch.tensor([-0.3, -0.1, float("nan"), -0.5], dtype=torch.float64)
    g, h = torch.randn(2, 4, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return Contributions(marginal, marginal.nanmean()), g, h


def weighs_each_group(name: str) -> None:
    """Check that an ablation loss has a finite value for each group and a finite gradient for each parameter.

    The values of the groups must not all be the same.
    """
    loss = name.removeprefix(Ablation.PREFIX)
    term = ablation_losses()[loss](AblationConfig(loss=loss))
    found, g, h = measured()
    value, gradient = term.value(found), term.gradient(found, g, h if term.differentiates else None)
    hold(tuple(value.shape) == (4,), f"its values for 4 groups are {list(value.shape)}, not [4]")
    hold(gradient.shape == g.shape, f"its gradient of {list(g.shape)} parameters is {list(gradient.shape)}")
    hold(bool(value.isfinite().all()), "a value is not finite")
    hold(bool(gradient.isfinite().all()), "its gradient is not finite")
    hold(len(set(value.tolist())) > 1, "its values are the same for all groups, whatever they contribute")


#: By kind of entry, each law in a few words.
LAWS: Mapping[str, Laws] = MappingProxyType(
    {
        "operation": (
            ("keeps the channels, and halves the size at stride 2", shapes),
            ("has no weights in normalisations without affine", no_weights_without_affine),
            ("leaves no trace of a pass that measures", leaves_no_trace),
            ("is written, read and trained in a genotype", trains),
        ),
        "space": (("is searched, and each of its operations can be found", is_searched_and_discretised),),
        "edge": (("with one gate open is that operation", opens_one_gate),),
        "ablation": (("has a value and a gradient of each group of cells", weighs_each_group),),
        "rule": (("keeps as many operations as it states", gives_a_genotype),),
        "method": (
            ("goes on after every epoch bit for bit", goes_on),
            ("follows the gradient of the loss that it states", follows_its_gradient),
            ("leaves the weights alone in steps of the alphas", keeps_weights_from_alpha_steps),
        ),
        "data set": (
            ("states facts that fit, and says which files it wants", states_its_facts),
            (
                "gives images of every class, the same at each reading, and others for the test",
                gives_its_images,
            ),
        ),
    }
)
