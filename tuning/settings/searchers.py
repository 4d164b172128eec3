"""The table of searchers: the names for `tune.searcher`, what each is, and the function that builds its Optuna sampler.

Optuna is imported when a sampler is built, so that settings can be read without it. A plug-in adds searchers of its own
(docs/extending.md).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.table import Table

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from .tune import TuneConfig

    Build = Callable[[int, TuneConfig], BaseSampler]


@dataclass(frozen=True)
class Searcher:
    """A searcher: it proposes the settings of a trial.

    Attributes:
        summary: what the searcher is, in a few words.
        build: (seed, settings of `tune`) -> a sampler of Optuna's that draws one trial and nothing else. The function
            is called anew for every trial, with another seed. The sampler is shown the trials that have ended.
        packages: the packages that the searcher needs beside those that the project needs.
        learns: whether a proposal depends on the trials that have ended; if not, the sampler is not shown them.
    """

    summary: str
    build: Build
    packages: tuple[str, ...] = ()
    learns: bool = True

    def __post_init__(self) -> None:
        """Check that `build` takes its two arguments.

        Raises:
            UserError: it does not.
        """
        try:
            inspect.signature(self.build).bind(1, None)
        except (TypeError, ValueError):
            raise UserError(
                f"searcher of {self.summary!r}: give a function (seed, tune) that builds a sampler of Optuna's, not "
                f"{self.build!r}"
            ) from None


def _limited(tune: TuneConfig) -> dict[str, Any]:
    """Arguments that make a sampler older than Optuna 5 heed `tune.limits`.

    The samplers of later versions look at what the trials note of the limits.
    """
    import optuna

    if int(optuna.__version__.split(".")[0]) >= 5 or not any(tune.limits.model_dump().values()):
        return {}
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning, module="optuna")
    return {"constraints_func": lambda trial: trial.system_attrs["constraints"]}


def _tpe(seed: int, tune: TuneConfig) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=tune.num_startup_trials, **_limited(tune))


def _nsga2(seed: int, tune: TuneConfig) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, **_limited(tune))


def _gp(seed: int, tune: TuneConfig) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=tune.num_startup_trials, **_limited(tune))


def _botorch(seed: int, tune: TuneConfig) -> BaseSampler:
    import optuna
    from optuna_integration import BoTorchSampler  # type: ignore[import-not-found,unused-ignore]  # an extra

    # It says so again at every trial.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning, module="optuna_integration")
    sampler: BaseSampler = BoTorchSampler(seed=seed, n_startup_trials=tune.num_startup_trials)
    return sampler


def _random(seed: int, tune: TuneConfig) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SEARCHERS: Table[Searcher] = Table(
    "searcher",
    {
        "optuna-tpe": Searcher(
            "Optuna's tree-structured Parzen estimator, multivariate; any space, one or two objectives", _tpe
        ),
        "optuna-nsga2": Searcher("Optuna's NSGA-II; for two objectives and many trials", _nsga2),
        "optuna-gp": Searcher("Optuna's Gaussian process; draws settings with a `when` at random", _gp),
        "optuna-botorch": Searcher(
            "Optuna's BoTorch sampler, if botorch is installed; draws settings with a `when` at random",
            _botorch,
            ("botorch", "optuna_integration"),
        ),
        "random": Searcher("independent draws, seeded", _random, learns=False),
        # Every point is given: nothing is drawn.
        "grid": Searcher("every combination of a space of categorical and int parameters, once", _random, learns=False),
    },
)
"""Searchers by name."""
