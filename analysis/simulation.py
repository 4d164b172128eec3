"""Searches that only look things up in a truth: random search, regularised evolution, local search, at equal cost.

A look at a genotype counts as one training. As a training would, it answers with the accuracy of one seed: one of the
genotype's seeds is drawn anew at each look. The genotype that a search holds to be its best is judged by its mean
accuracy over seeds. Pure functions of the truth and a seed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from .statistics import Estimate, mean_interval
from .truth import Truth

#: One look after another: the number of a genotype and the accuracy that was seen.
Looks: TypeAlias = Iterator[tuple[int, float]]

#: Regularised evolution: how many genotypes are alive, and of how many the best is changed (Real et al. 2019 have 100
#: and 25, for 20,000 looks).
POPULATION, SAMPLE = 20, 5


class Table:
    """What simulated searches ask of a truth.

    Attributes:
        numbers: the numbers of the genotypes that were trained.
    """

    def __init__(self, truth: Truth) -> None:
        self.every = truth.every
        groups = truth.trainings.groupby("number")["accuracy"]
        self._seen = {int(str(number)): values.tolist() for number, values in groups}
        self.numbers = sorted(self._seen)
        self._near: dict[int, tuple[int, ...]] = {}

    def look(self, number: int, draw: random.Random) -> float:
        """The accuracy of one training of a genotype."""
        return float(draw.choice(self._seen[number]))

    def mean(self, number: int) -> float:
        """The accuracy of a genotype, over its seeds."""
        values = self._seen[number]
        return float(sum(values) / len(values))

    def near(self, number: int) -> tuple[int, ...]:
        """The trained genotypes that differ from one in one operation or one source."""
        if number not in self._near:
            self._near[number] = tuple(one for one in self.every.neighbours(number) if one in self._seen)
        return self._near[number]


def random_search(table: Table, draw: random.Random) -> Looks:
    """Genotypes drawn at random, each as likely as every other."""
    while True:
        number = draw.choice(table.numbers)
        yield number, table.look(number, draw)


def regularised_evolution(table: Table, draw: random.Random) -> Looks:
    """Real et al. 2019: the best of a sample of the living is changed in one place, and the oldest dies."""
    alive: deque[tuple[int, float]] = deque(islice(random_search(table, draw), POPULATION))
    yield from tuple(alive)
    while True:
        parent, _ = max(draw.sample(alive, SAMPLE), key=lambda one: one[1])
        child = draw.choice(table.near(parent) or table.numbers)
        alive.append((child, table.look(child, draw)))
        alive.popleft()
        yield alive[-1]


def local_search(table: Table, draw: random.Random) -> Looks:
    """White et al. 2021: go to the first neighbour that looks better; where none does, begin anew elsewhere."""
    while True:
        number = draw.choice(table.numbers)
        best = table.look(number, draw)
        yield number, best
        climbing = True
        while climbing:
            climbing = False
            near = list(table.near(number))
            draw.shuffle(near)
            for other in near:
                seen = table.look(other, draw)
                yield other, seen
                if seen > best:
                    number, best, climbing = other, seen, True
                    break


#: Simulated searches by name.
SEARCHES: Mapping[str, Callable[[Table, random.Random], Looks]] = MappingProxyType(
    {"random": random_search, "evolution": regularised_evolution, "local": local_search}
)


def regret_curve(looks: Looks, table: Table, number: int) -> list[float]:
    """Regret of the genotype that looks best so far, after each of the first `number` looks.

    The regret is the best mean accuracy in the table less the mean accuracy of that genotype, as a fraction of 1.
    """
    best = max(table.mean(one) for one in table.numbers)
    curve: list[float] = []
    held, seen = -1, -np.inf
    for genotype, accuracy in islice(looks, number):
        if accuracy > seen:
            held, seen = genotype, accuracy
        curve.append(best - table.mean(held))
    return curve


def simulate(truth: Truth, looks: int, runs: int = 200, seed: int = 0) -> dict[str, list[Estimate]]:
    """Mean regret, with its 95 % interval over the runs, after 1, 2, ... looks; by search.

    Args:
        truth: the truth that the simulated searches look at.
        looks: how many looks each run takes.
        runs: how many runs each search has, each with a random stream of its own.
        seed: the seed of all streams.
    """
    table = Table(truth)
    found = {}
    for name, search in SEARCHES.items():
        draws = [random.Random(f"{name} {seed} {run}") for run in range(runs)]
        curves = np.array([regret_curve(search(table, draw), table, looks) for draw in draws])
        found[name] = [mean_interval(column.tolist()) for column in curves.T]
    return found
