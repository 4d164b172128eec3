"""Where an epoch is in the stages of a search. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from ..ground.nested import merge
from ..methods import PLANS
from ..methods.parts import Stage
from ..settings.config import ExperimentConfig


@dataclass(frozen=True)
class Place:
    """Where an epoch is.

    Attributes:
        number: number of the epoch's stage, from 0.
        network: number of the epoch's network, from 0.
        stage: the epoch's stage.
        stage_epoch: number of epochs since the stage began, from 0.
        epoch: number of epochs since the learning rates began, from 0.
        epochs: number of epochs from this begin to where the learning rates begin anew, or to the end.
    """

    number: int
    network: int
    stage: Stage
    stage_epoch: int
    epoch: int
    epochs: int


class Course:
    """The stages of a search, one after the other.

    Example:
        >>> from ddarts_core.settings.config import resolve
        >>> course = Course(resolve({"search": {"warmup_epochs": 2, "epochs": 3}}))
        >>> [(course.at(epoch).stage.phase, course.at(epoch).stage_epoch) for epoch in (0, 1, 2, 4)]
        [('warmup', 0), ('warmup', 1), ('search', 0), ('search', 2)]
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.plan = PLANS[config.search.stages](config.search)
        self.stages = tuple(stage for stage in self.plan.stages() if stage.epochs)
        self.num_epochs = sum(stage.epochs for stage in self.stages)

    def at(self, epoch: int) -> Place:
        """The place of an epoch; an epoch after the last one has the place of the last one."""
        epoch = min(epoch, self.num_epochs - 1)
        first = begun = 0
        number = 0
        while epoch >= first + self.stages[number].epochs:
            first += self.stages[number].epochs
            number += 1
            if self.stages[number].restart:
                begun = first
        later = self.stages[number + 1 :]
        end = first + self.stages[number].epochs
        for stage in later:
            if stage.restart:
                break
            end += stage.epochs
        network = sum(stage.fresh for stage in self.stages[1 : number + 1])
        return Place(number, network, self.stages[number], epoch - first, epoch - begun, end - begun)

    def settings(self, number: int) -> ExperimentConfig:
        """The experiment in a stage."""
        changed = self.stages[number].settings
        if not changed:
            return self.config
        plain = self.config.model_dump(include=set(ExperimentConfig.model_fields))
        return ExperimentConfig.model_validate(merge(plain, changed))
