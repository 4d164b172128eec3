"""The parts of a method: what a search asks of each kind of part, and what the part answers.

A part is a class with a name. A search makes one object of each of its parts, and the object knows the settings of the
search. Parts handle tensors by the tensors' own methods, and import torch only where they need it. So a configuration
can be read and checked without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ..ground.validation import Strict, validate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..genotypes.genotype import Edge as Chosen
    from ..search.examination import Examination
    from ..settings.config import ExperimentConfig
    from ..settings.search_settings import AblationConfig, DiscretiseConfig, SearchConfig
    from ..supernets.searched import SearchedNetwork

#: Architecture parameters by name; the first axis of each is the group of cells that shares them.
Parameters: TypeAlias = "Mapping[str, Tensor]"


@dataclass(frozen=True)
class Shape:
    """The sizes that architecture parameters depend on.

    Attributes:
        groups: number of groups of cells; the cells of a group share parameters. In a network without cells each
            decision is a group.
        edges: number of edges of a cell; 1 in a network without cells.
        operations: number of operations that an edge chooses from, or the largest number of options of a decision.
        steps: number of intermediate nodes of a cell; 0 in a network without cells.
        links: number of earlier cells from which the last cell chooses one, to read it beside the two cells before it;
            0 without links.
        options: number of options of each decision; empty where all groups have `operations` of them.
    """

    groups: int
    edges: int
    operations: int
    steps: int = 0
    links: int = 0
    options: tuple[int, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where a search is.

    Attributes:
        epoch: number of epochs since the network and its learning rates began; the first epoch is 0.
        epochs: number of epochs from this begin to the end of the network.
        stage_epoch: number of epochs since the stage began; the first epoch is 0.
        stage_epochs: number of epochs of the stage.
        purpose: `alphas` or `weights` in a step of these; else `evaluation`, in which nothing may be drawn.
        draw: a function that returns a generator at the start of the step's own stream, the same one at every call;
            None in an evaluation.
        draw_once: like `draw`, for a stream that a number of steps of an epoch share, which is the function's argument;
            steps of alphas and of weights share it. None in an evaluation.
    """

    epoch: int = 0
    epochs: int = 1
    stage_epoch: int = 0
    stage_epochs: int = 1
    purpose: str = "evaluation"
    draw: Callable[[], torch.Generator] | None = None
    draw_once: Callable[[int], torch.Generator] | None = None


class Part:
    """Base of all parts.

    Attributes:
        name: the name by which a file chooses the part.
        summary: what the part is, in one line.
        where: the setting that holds the part's options.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    where: ClassVar[str] = "search.options"

    class Options(Strict):
        """The part's own settings, which are keys of the setting `where`."""

    def __init__(self, search: SearchConfig) -> None:
        self.search = search
        self.options: Any = self.own_options(search.options)

    @classmethod
    def own_options(cls, options: Mapping[str, Any]) -> Any:
        """The part's own options from a mapping, checked; an option that the mapping lacks has its default."""
        own = {key: value for key, value in options.items() if key in cls.Options.model_fields}
        return validate(cls.Options, own, cls.where)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """One sentence if the part has no meaning with the other settings; None if it has."""
        return None


class Gates(Part):
    """The architecture: which parameters there are, and which gates follow from them.

    Attributes:
        independent: whether the gates of an edge are decided one by one (sigmoid), not against each other (softmax).
        exact: for gates that are drawn, whether their gradient is the exact gradient of the loss under this draw, and
            not an estimate.
        uneven: whether the gates know that groups may have different numbers of options (`Shape.options`).
    """

    independent: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    uneven: ClassVar[bool] = False

    def parameters(self, shape: Shape, stream: torch.Generator | None) -> dict[str, Tensor]:
        """The parameters at the start, by name: zeros, or 1e-3 N(0, 1) drawn from a stream."""
        return {"alphas": initial((shape.groups, shape.edges, shape.operations), stream)}

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """The weights of the operations, [groups, edges, operations]; differentiable in the parameters."""
        raise NotImplementedError

    def against(self, gates: Tensor, progress: Progress, probe: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """The gates under which a step of the weights is taken. A method may let them depend on the step's batch.

        Args:
            gates: the gates of this step, [groups, edges, operations].
            progress: where the search is.
            probe: a function of any gates, which returns the mean cross entropy of the step's batch under them, and its
                gradient by them. Each call takes a pass of the network.
        """
        return gates

    def scores(self, parameters: Parameters) -> Tensor:
        """The scores that the discretisation ranks, [groups, edges, operations]: the gates, unless a method differs."""
        return self.gates(parameters, Progress())

    @property
    def has_links(self) -> bool:
        """Whether each cell reads one earlier cell beside the two cells before it (`genotypes.links`)."""
        return False

    def links(self, parameters: Parameters, progress: Progress) -> Tensor:
        """The weights of the earlier cells that each group's cell may read, [groups, links]; it reads the largest one.

        Cell k reads one of the first k - 2 cells; further weights of its group are without effect.
        """
        raise NotImplementedError

    def trained(self, parameters: Parameters, progress: Progress) -> dict[str, Tensor]:
        """Which values a step of the alphas may change, by name; if a name is left out, the step may change all."""
        return {}


def initial(shape: Sequence[int], stream: torch.Generator | None) -> Tensor:
    """Parameters of a shape: zeros, or 1e-3 N(0, 1) from a stream."""
    import torch

    start = torch.zeros(*shape)
    return start if stream is None else start.normal_(std=1e-3, generator=stream)


class Edge(Part):
    """A mixed edge: what it computes from its input and its gates.

    Attributes:
        extra: operations that every edge has beside those it chooses from; the discretisation drops them.
    """

    extra: ClassVar[tuple[str, ...]] = ()

    def build(self, names: Sequence[str], channels: int, stride: int) -> nn.Module:
        """A module (x, gates) -> mixed output, with the operations in its list `ops`."""
        from ..supernets.supernet import MixedOp

        return MixedOp(names, channels, stride)

    def begin(self, net: nn.Module, progress: Progress) -> None:
        """Prepare the supernet; this is called before each step of weights or alphas."""

    def weights(self, progress: Progress) -> tuple[float, ...]:
        """The gates of the extra operations, which are the same on every edge."""
        return ()


class Regulariser(Part):
    """A term of the loss of the architecture parameters for which no image is needed.

    Attributes:
        drawn: whether the term is of the gates of the step, which may be drawn. Else it is of those outside steps.
        summed: whether the terms of the groups are added where all groups have one loss (`Network.one_loss`). Else
            their mean counts there. Where each group has a loss of its own, this makes no difference.
    """

    drawn: ClassVar[bool] = True
    summed: ClassVar[bool] = False

    def fit(self, net: SearchedNetwork) -> None:
        """Look at the network that the term is of; this is called before any value is asked for."""

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """The term of each group, [groups]; differentiable in the parameters and in their gates."""
        raise NotImplementedError

    def gradient(self, parameters: Parameters, gates_of: Callable[[Parameters], Tensor]) -> dict[str, Tensor]:
        """The derivative of each group's term with respect to the group's own parameters, by name.

        A parameter on which the term does not depend is left out.

        Args:
            parameters: the parameters by name, detached.
            gates_of: the gates as a function of the parameters.
        """
        import torch

        leaves = {name: values.detach().clone().requires_grad_() for name, values in parameters.items()}
        with torch.enable_grad():
            total = self.value(leaves, gates_of(leaves)).sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


@dataclass(frozen=True)
class Contributions:
    """What the groups of cells contributed in one step (D-DARTS eq. 6).

    Attributes:
        marginal: M_i = L_CE(C) - L_CE(C without C_i), [groups]; NaN for a group that was not measured.
        mean: m, the mean of all M_i; it is a running mean if a step measures only some groups.
    """

    marginal: Tensor
    mean: Tensor

    @property
    def filled(self) -> Tensor:
        """`marginal`, in which a group that was not measured counts as average."""
        return self.marginal.where(~self.marginal.isnan(), self.mean)


class Ablation(Part):
    """An ablation loss: a term of the loss of the architecture parameters that follows from what cells contribute.

    An ablation loss is in the same table as the other terms, and its name begins with `PREFIX`. `search.regularisers`
    uses this whole name, and `ablation.loss` uses the name without the prefix. Both mean the same, and a configuration
    keeps the second form.

    Attributes:
        differentiates: whether the gradient contains H, so that a step differentiates the ablated networks too.
        compares: whether the loss compares all groups of a step, so that a step may leave no group out.
    """

    PREFIX: ClassVar[str] = "ablation-"
    where = "ablation.options"
    differentiates: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    def __init__(self, ablation: AblationConfig) -> None:
        self.ablation = ablation
        self.options = self.own_options(ablation.options)

    def value(self, found: Contributions) -> Tensor:
        """The term of each group, [groups]. This value is recorded, whatever the gradient is."""
        raise NotImplementedError

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """The gradient that moves the parameters of each group, in the shape of `g`, whose first axis is the groups.

        Args:
            found: what the groups contributed in this step.
            g: g_i, the gradient of the whole network's cross entropy by the group's own parameters.
            h: H_i, the sum of the gradients, by the group's own parameters, of all networks that lack another group;
                None unless `differentiates`.
        """
        raise NotImplementedError

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Refuse steps that measure only some groups, if the loss compares all groups."""
        if cls.compares and config.ablation.sample_cells is not None:
            loss = config.ablation.loss
            return f"ablation.loss {loss} compares all cells of a step: use ablation.sample_cells null"
        return None


#: Operations of the space that each edge still has, by number: [groups][edges][operations].
Kept: TypeAlias = "Sequence[Sequence[Sequence[int]]]"


@dataclass(frozen=True)
class Beside:
    """A network of the genotype that is trained beside the supernet, and gets its weights from a pool.

    Attributes:
        cycle: number of epochs after which the network is built anew.
        warmup: number of passes over the alphas' split that train the network alone when it is new.
        cells: the depth of the network in cells.
        lr: the learning rate of the network.
        weight: a of the joint loss (`distillation.joint`).
        temperature: T of the joint loss.
    """

    cycle: int
    warmup: int
    cells: int
    lr: float
    weight: float
    temperature: float


@dataclass(frozen=True)
class Stage:
    """Epochs that train the same things on the same network.

    Attributes:
        phase: the phase that the stage's records have: `warmup`, `search`, or `joint` (weights and alphas on the images
            of both splits).
        epochs: number of epochs of the stage.
        fresh: whether the stage begins with a new network, new architecture parameters and new optimisers.
        restart: whether the learning rates begin anew; a new network may also go on with the schedule of the network
            before it.
        kept: how many of its operations each edge keeps; None keeps all.
        settings: the settings of the experiment that differ in this stage.
        by_gradient: whether the alphas, if they are trained, follow their gradient in every step.
        decides: whether the plan decides something before each epoch (`Plan.decide`).
        renewed: number of steps of an epoch after which the optimisers of weights and alphas forget earlier steps; None
            means never.
        beside: the network that learns together with the alphas; None means no such network.
    """

    phase: str
    epochs: int
    fresh: bool = False
    restart: bool = False
    kept: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_gradient: bool = True
    decides: bool = False
    renewed: int | None = None
    beside: Beside | None = None

    @property
    def trains_alphas(self) -> bool:
        """Whether the stage trains the architecture parameters."""
        return self.phase != "warmup"

    @property
    def joint(self) -> bool:
        """Whether the weights are trained on the images of both splits, that of the weights and that of the alphas."""
        return self.phase == "joint"


class Plan(Part):
    """The stages of a search.

    In all they have `search.warmup_epochs` without training of the alphas, and `search.epochs` with it.

    Attributes:
        has_heads: whether the supernet's logits are the mean of the logits behind its reduction cells and its last
            cell.
    """

    has_heads: ClassVar[bool] = False

    def stages(self) -> tuple[Stage, ...]:
        """The stages in order. Their epochs add up to warm-up and search epochs; a stage without epochs is left out."""
        raise NotImplementedError

    def decide(self, found: Examination) -> None:
        """Measure, and change parameters or fix gates; called before each epoch of a stage that `decides`."""
        raise NotImplementedError

    def passes(self, stage: Stage, groups: int, batches: int) -> int:
        """How many passes of one batch the decisions of a stage take at most.

        Args:
            stage: a stage that `decides`.
            groups: number of groups of cells; the cells of a group share parameters.
            batches: number of whole batches of the alphas' split.
        """
        raise NotImplementedError

    def keep(self, scores: Sequence[Sequence[Sequence[float]]], before: Kept, number: int) -> list[list[list[int]]]:
        """The operations that each edge keeps: those with the largest scores, in the order of the space.

        Args:
            scores: the scores of the operations that each edge had, [groups][edges][operations].
            before: the numbers of these operations in the space.
            number: how many operations to keep.
        """
        return [
            [
                sorted(sorted(kept, key=lambda op: -dict(zip(kept, of_edge, strict=True))[op])[:number])
                for kept, of_edge in zip(edges, of_group, strict=True)
            ]
            for edges, of_group in zip(before, scores, strict=True)
        ]


class Freezing(Part):
    """Decides which operations are not trained any more. Without a period, all operations are trained to the end."""

    @property
    def period(self) -> int | None:
        """Number of steps between two decisions; with None nothing is decided, and nothing is measured."""
        return None

    def freezes(self, means: Tensor) -> Tensor:
        """Whether each operation is frozen from now on, [operations].

        Args:
            means: for each operation, the mean over the steps since the last decision of the cosine between the
                gradients of both splits by the operation's weights, [operations]; NaN if it was not measured.
        """
        raise NotImplementedError


class Rule(Part):
    """The rule of the discretisation, which chooses the edges of a cell by their scores.

    Bare nodes and dead cells are mended after it.

    Attributes:
        most_operations: the most operations that an edge may keep; None means all.
    """

    where = "discretise.options"
    most_operations: ClassVar[int | None] = None

    def __init__(self, discretise: DiscretiseConfig) -> None:
        self.discretise = discretise
        self.options = self.own_options(discretise.options)

    @property
    def most_edges(self) -> int | None:
        """The most edges that a node may keep; None means all."""
        raise NotImplementedError

    def select(self, scores: Sequence[Sequence[float]], operations: Sequence[str], steps: int) -> list[Chosen]:
        """The edges of one cell. Nodes may be left without an input, and the zero operation is never chosen.

        Args:
            scores: the scores [edges][operations], with the edges in the order of `spaces.edge_list`.
            operations: the names of the operations.
            steps: number of intermediate nodes.
        """
        raise NotImplementedError
