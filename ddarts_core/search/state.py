"""What a search trains in each stage, and the optimisers that train it: all that the next epoch depends on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..data.sets import DataInfo
from ..ground.errors import UserError
from ..methods import FREEZINGS, network_of
from ..methods.parts import Beside, Kept, Parameters, Progress
from ..settings.config import ExperimentConfig
from ..settings.hashing import config_hash
from ..settings.warm_start import encode, start_genotype
from ..supernets.execution import choose, prepare
from ..supernets.supernet import group_map, of_cells
from ..tensors.optimisers import SGD, Adam
from ..tensors.seeding import generator, seeded_init
from .alpha_step import AlphaStep
from .architecture import Architecture
from .companion import Companion
from .discretise import Derivation
from .freezing import Watch
from .stages import Course


class SearchState:
    """Network, architecture parameters and optimisers of the stage that a search is in.

    Args:
        config: the configuration of the whole experiment, whose `seed` decides everything random.
        info: the facts of the data set.
        device: the device on which all tensors are.
    """

    def __init__(self, config: ExperimentConfig, info: DataInfo, device: torch.device) -> None:
        self.config = config
        self.info = info
        self.device = device
        self.epoch = 0
        #: Distance to the start after each epoch that `search.stop` counts.
        self._distances: list[float] = []
        self.course = Course(config)
        self.execution = choose(config, self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.execution.scales_loss)
        self._scaler.scale(torch.zeros((), device=self.device))  # its first call makes the scale that `update` needs
        self._build(0, None)

    def _build(self, number: int, kept: Kept | None, *, fresh: bool = True) -> None:
        """Make what a stage trains and trains with. Unless `fresh`, network, parameters and SGD stay as they are.

        Attributes: `now`, the experiment in this stage; `kept`, the operations that its edges have.
        """
        config = self.now = self.course.settings(number)
        self.stage, self.kept = number, kept
        if fresh:
            with seeded_init(config.seed, "supernet", *[number][: number > 0]):
                net = network_of(config.search).build(self.info, kept)
            self.net = prepare(net, self.execution, self.device)
            self._sgd = SGD(
                self.net.parameters(),
                lr=config.search.lr,
                momentum=config.search.momentum,
                weight_decay=config.search.weight_decay,
                foreach=True,
            )
            rule = FREEZINGS[config.search.freezing](config.search)
            self._watch = None if rule.period is None else Watch(of_cells(self.net), rule)
            beside = self.course.stages[number].beside
            self._companion = None if beside is None else self._company(beside)
            #: What the plan remembers of its decisions.
            self._memory: dict[str, Tensor] = {}
        fixed = None if fresh else self.architecture.fixed
        self._step = AlphaStep(self.net, config, kept)
        self._step.watch = self._watch
        self._step.companion = self._companion
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
        if stage.beside is None or self._companion is None:
            self._companion = None if stage.beside is None else self._company(stage.beside)
        self._step.companion = self._companion
        self.stage = number

    def _company(self, beside: Beside) -> Companion:
        """What is trained beside the supernet."""
        return Companion(beside, self.now.search, self.info, self.device, self.execution.layout, self.config.seed)

    def _start(self, number: int) -> dict[str, Tensor]:
        """Architecture parameters at the start of a stage."""
        config = self.now
        stream = generator(config.seed, "alphas", *[number][: number > 0]) if config.alpha.init == "normal" else None
        start = self.architecture.parameters(stream)
        if config.search.start is not None:
            known = torch.tensor(encode(start_genotype(config.search), config.search.space, config.search.steps))
            group_of = group_map(config.search)
            for cell, group in enumerate(group_of):
                margin = config.alpha.start_margin * (2 * known[cell] - 1) / group_of.count(group)
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
    def cell_gates(self) -> Any:
        """`decided_gates` of each part that a genotype has, [parts, edges, operations], on the CPU."""
        return network_of(self.now.search).of_parts(self.decided_gates.cpu())

    def _set_parameters(self, parameters: Parameters) -> None:
        for name, values in self._parameters.items():
            for value, of_group in zip(values, parameters[name], strict=True):
                value.data.copy_(of_group)

    def discretise(self) -> Derivation:
        """The genotype that the current gates stand for (section 5.1)."""
        scores = self.architecture.scores(self.parameters).cpu()
        links = self.architecture.links(self.parameters)
        return network_of(self.now.search).derive(scores, self.config.discretise, self.info.image_size, links)

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
            "companion": None if self._companion is None else self._companion.state_dict(),
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
        self._company_of(state.get("companion"))
        self._scaler.load_state_dict(state["scaler"])

    def _company_of(self, state: dict[str, Any] | None) -> None:
        """The network beside the supernet as it was; None where there was none."""
        beside = self.course.stages[self.stage].beside
        self._companion = None if beside is None or state is None else self._company(beside)
        self._step.companion = self._companion
        if self._companion is not None and state is not None:
            self._companion.load_state_dict(state)


def _as_of_today(state: dict[str, Any]) -> dict[str, Any]:
    """A state of a version in which alphas were the only architecture parameters, and a search had no stages."""
    step, alphas = dict(state["alpha_step"]), state["alphas"]
    if step["residual"] is not None:
        step["residual"] = {"alphas": step["residual"]}
    return {**state, "architecture": {"alphas": alphas}, "alpha_step": step, "stage": 0, "kept": None}
