"""The parts of a method, what each is asked, and what it answers. Torch-free until a search asks.

A part is a class with a name; a search makes one object of each, which knows the search's settings. Tensors are handled
by their own methods, and what needs torch itself is imported where it is used, so that a configuration can be read and
checked without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ..genotypes.spaces import num_edges
from ..ground.validation import Strict, validate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..genotypes.genotype import Edge as Chosen
    from ..search.examination import Examination
    from ..settings.config import ExperimentConfig
    from ..settings.search_settings import AblationConfig, DiscretiseConfig, SearchConfig

#: Architecture parameters by name; the first axis of each is the group of cells that shares them.
Parameters: TypeAlias = "Mapping[str, Tensor]"


@dataclass(frozen=True)
class Shape:
    """The sizes that architecture parameters depend on.

    Attributes:
        groups: of cells that share parameters.
        steps: intermediate nodes of a cell.
        operations: that an edge chooses from.
        links: earlier cells that the last cell chooses from, to read one beside the two before it; 0 without links.
    """

    groups: int
    steps: int
    operations: int
    links: int = 0

    @property
    def edges(self) -> int:
        """Edges of a cell."""
        return num_edges(self.steps)


@dataclass(frozen=True)
class Progress:
    """Where a search is.

    Attributes:
        epoch: since the network and its learning rates began, from 0.
        epochs: from there to the end of that network.
        stage_epoch: of the stage, from 0.
        stage_epochs: of the stage.
        purpose: `alphas` or `weights` in a step of these; else `evaluation`, in which nothing may be drawn.
        draw: a generator at the start of the step's own stream, the same at every call; None in an evaluation.
        draw_once: the same for a stream that so many steps of an epoch share, alphas' and weights'; None as `draw` is.
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
        name: by which a file chooses it.
        summary: what it is, in one line.
        where: the setting that holds its options.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    where: ClassVar[str] = "search.options"

    class Options(Strict):
        """The part's own settings, keys of `where`."""

    def __init__(self, search: SearchConfig) -> None:
        self.search = search
        self.options: Any = self.own_options(search.options)

    @classmethod
    def own_options(cls, options: Mapping[str, Any]) -> Any:
        """The options of a mapping that are the part's own, checked, and the defaults of those that it lacks."""
        own = {key: value for key, value in options.items() if key in cls.Options.model_fields}
        return validate(cls.Options, own, cls.where)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """One sentence when the other settings leave the part without meaning; None when all is well."""
        return None


class Gates(Part):
    """The architecture: which parameters there are, and the gates that they stand for.

    Attributes:
        independent: whether gates of an edge are decided one by one (sigmoid) and not against each other (softmax).
        exact: whether the gradient of gates that are drawn is that of the loss under this draw, not an estimate.
    """

    independent: ClassVar[bool] = False
    exact: ClassVar[bool] = False

    def parameters(self, shape: Shape, stream: torch.Generator | None) -> dict[str, Tensor]:
        """Parameters at the start, by name: zeros, or 1e-3 N(0, 1) from a stream."""
        return {"alphas": initial((shape.groups, shape.edges, shape.operations), stream)}

    def gates(self, parameters: Parameters, progress: Progress) -> Tensor:
        """Weights of the operations, [groups, edges, operations]; differentiable in the parameters."""
        raise NotImplementedError

    def against(self, gates: Tensor, progress: Progress, probe: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """The gates under which a step of the weights is taken; a method may let the step's batch decide.

        Args:
            gates: of that step, [groups, edges, operations].
            progress: where the search is.
            probe: mean cross entropy of the step's batch under any gates, and its gradient by them; a pass each time.
        """
        return gates

    def scores(self, parameters: Parameters) -> Tensor:
        """What the discretisation ranks, [groups, edges, operations]; the gates unless a method says otherwise."""
        return self.gates(parameters, Progress())

    @property
    def has_links(self) -> bool:
        """Whether cells read one earlier cell beside the two before them (`genotypes.links`)."""
        return False

    def links(self, parameters: Parameters, progress: Progress) -> Tensor:
        """Weights of the earlier cells that each group's cell may read, [groups, links]; the largest one is read.

        Cell k reads one of the first k - 2; what a group has behind these counts for nothing.
        """
        raise NotImplementedError

    def trained(self, parameters: Parameters, progress: Progress) -> dict[str, Tensor]:
        """Which values a step of the alphas may change, by name; of a name that is left out all of them."""
        return {}


def initial(shape: Sequence[int], stream: torch.Generator | None) -> Tensor:
    """Parameters of a shape: zeros, or 1e-3 N(0, 1) from a stream."""
    import torch

    start = torch.zeros(*shape)
    return start if stream is None else start.normal_(std=1e-3, generator=stream)


class Edge(Part):
    """What a mixed edge computes from its input and its gates.

    Attributes:
        extra: operations that every edge has beside those it chooses from; they are dropped by the discretisation.
    """

    extra: ClassVar[tuple[str, ...]] = ()

    def build(self, names: Sequence[str], channels: int, stride: int) -> nn.Module:
        """A module (x, gates) -> mixed output, with the operations in its list `ops`."""
        from ..supernets.supernet import MixedOp

        return MixedOp(names, channels, stride)

    def begin(self, net: nn.Module, progress: Progress) -> None:
        """Called before each step of weights or alphas, on the supernet."""

    def weights(self, progress: Progress) -> tuple[float, ...]:
        """Gates of the extra operations, the same on every edge."""
        return ()


class Regulariser(Part):
    """A term of the loss of the architecture parameters that no image is needed for."""

    def value(self, parameters: Parameters, gates: Tensor) -> Tensor:
        """The term of each group, [groups]; differentiable in the parameters and in their gates."""
        raise NotImplementedError

    def gradient(self, parameters: Parameters, gates_of: Callable[[Parameters], Tensor]) -> dict[str, Tensor]:
        """Derivative of each group's term with respect to its own parameters, by name; those without are left out.

        Args:
            parameters: detached.
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
        marginal: M_i = L_CE(C) - L_CE(C without C_i), [groups]; NaN where it was not measured.
        mean: m, their mean; a running mean where a step measures some groups only.
    """

    marginal: Tensor
    mean: Tensor

    @property
    def filled(self) -> Tensor:
        """`marginal`, in which a group that was not measured counts as average."""
        return self.marginal.where(~self.marginal.isnan(), self.mean)


class Ablation(Part):
    """An ablation loss: a term of the loss of the architecture parameters that is made of contributions of cells.

    It stands in the table of the other terms, and its name begins with `PREFIX`. `search.regularisers` names it like
    them; `ablation.loss` names it without the prefix. Both mean the same, and a configuration keeps the second form.

    Attributes:
        differentiates: whether the gradient contains H, so that a step differentiates the ablated networks.
        compares: whether it compares all groups of a step, so that a step may leave none out.
    """

    PREFIX: ClassVar[str] = "ablation-"
    where = "ablation.options"
    differentiates: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    def __init__(self, ablation: AblationConfig) -> None:
        self.ablation = ablation
        self.options = self.own_options(ablation.options)

    def value(self, found: Contributions) -> Tensor:
        """The term of each group, [groups]. It is recorded, whatever the gradient is."""
        raise NotImplementedError

    def gradient(self, found: Contributions, g: Tensor, h: Tensor | None) -> Tensor:
        """What moves the parameters of each group, in the shape of `g`, whose first axis is the groups.

        Args:
            found: in this step.
            g: g_i, the gradient of the whole network's cross entropy by the group's own parameters.
            h: H_i, the sum of the gradients of all networks that lack another group, if `differentiates`, else None.
        """
        raise NotImplementedError

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """A loss that compares all groups needs all of them."""
        if cls.compares and config.ablation.sample_cells is not None:
            loss = config.ablation.loss
            return f"ablation.loss {loss} compares all cells of a step: use ablation.sample_cells null"
        return None


#: Operations of the space that each edge still has, by number: [groups][edges][operations].
Kept: TypeAlias = "Sequence[Sequence[Sequence[int]]]"


@dataclass(frozen=True)
class Beside:
    """A network of the genotype that is trained beside the supernet, from weights that a pool keeps.

    Attributes:
        cycle: epochs until it is built anew.
        warmup: passes of the alphas' split that train it alone when it is new.
        cells: its depth.
        lr: its learning rate.
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
        phase: of its records: `warmup`, `search`, or `joint` (weights and alphas on the images of both splits).
        epochs: how many.
        fresh: whether it begins with a new network, new architecture parameters and new optimisers.
        restart: whether learning rates begin anew; a new network may also go on with the schedule of the one before.
        kept: operations that each edge keeps of those that it had; None keeps all.
        settings: of the experiment that differ in this stage.
        by_gradient: whether alphas, if they are trained, follow their gradient in every step.
        decides: whether the plan decides something before each epoch (`Plan.decide`).
        renewed: steps of an epoch after which optimisers of weights and alphas forget what was; None is never.
        beside: the network that learns with the alphas; None is none.
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
        """Whether architecture parameters are trained."""
        return self.phase != "warmup"

    @property
    def joint(self) -> bool:
        """Whether the weights' images are those of the weights' and of the alphas' split."""
        return self.phase == "joint"


class Plan(Part):
    """The stages of a search: `search.warmup_epochs` without and `search.epochs` with training of the alphas in all.

    Attributes:
        has_heads: whether the supernet's logits are the mean of those behind its reduction cells and its last one.
    """

    has_heads: ClassVar[bool] = False

    def stages(self) -> tuple[Stage, ...]:
        """The stages in order. Their epochs add up to warm-up and search epochs; one without epochs is left out."""
        raise NotImplementedError

    def decide(self, found: Examination) -> None:
        """Change parameters or fix gates by what is measured; called before the epochs of a stage that `decides`."""
        raise NotImplementedError

    def passes(self, stage: Stage, groups: int, batches: int) -> int:
        """Passes of one batch that the decisions of a stage take, at most.

        Args:
            stage: one that `decides`.
            groups: of cells that share parameters.
            batches: whole ones of the alphas' split.
        """
        raise NotImplementedError

    def keep(self, scores: Sequence[Sequence[Sequence[float]]], before: Kept, number: int) -> list[list[list[int]]]:
        """The operations that each edge keeps: those of the largest scores, in the order of the space.

        Args:
            scores: of the operations that each edge had, [groups][edges][operations].
            before: their numbers in the space.
            number: of operations to keep.
        """
        return [
            [
                sorted(sorted(kept, key=lambda op: -dict(zip(kept, of_edge, strict=True))[op])[:number])
                for kept, of_edge in zip(edges, of_group, strict=True)
            ]
            for edges, of_group in zip(before, scores, strict=True)
        ]


class Freezing(Part):
    """Which operations stop being trained. Without a period none of them does."""

    @property
    def period(self) -> int | None:
        """Steps between decisions; None decides nothing, and costs nothing."""
        return None

    def freezes(self, means: Tensor) -> Tensor:
        """Whether each operation is frozen from now on, [operations].

        Args:
            means: of the cosine between the gradients of both splits by an operation's weights, over the steps since
                the last decision, [operations]; NaN where it was not measured.
        """
        raise NotImplementedError


class Rule(Part):
    """Discretisation: from scores to the edges of a cell; bare nodes and dead cells are mended after it.

    Attributes:
        most_operations: that an edge may keep; None is all.
    """

    where = "discretise.options"
    most_operations: ClassVar[int | None] = None

    def __init__(self, discretise: DiscretiseConfig) -> None:
        self.discretise = discretise
        self.options = self.own_options(discretise.options)

    @property
    def most_edges(self) -> int | None:
        """Edges that a node may keep; None is all."""
        raise NotImplementedError

    def select(self, scores: Sequence[Sequence[float]], operations: Sequence[str], steps: int) -> list[Chosen]:
        """Edges of one cell; nodes may be left without input, and the zero operation is never chosen.

        Args:
            scores: [edges][operations], edges in the order of `spaces.edge_list`.
            operations: their names.
            steps: intermediate nodes.
        """
        raise NotImplementedError
