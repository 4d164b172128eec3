"""What every searcher must do, as functions that raise `Broken`; the tests call them for each searcher of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import optuna

from ddarts_core.extension.law import Broken, Laws

from ..settings.config import SweepConfig, resolve_sweep
from ..settings.tune import ACCURACY
from .journal import frozen
from .searcher import propose

#: Settings of every kind: on a log scale, whole numbers, choices, and one that is drawn only with a choice.
SPACE: Mapping[str, Any] = MappingProxyType(
    {
        "search.w_zero_one": {"type": "float", "low": 0.5, "high": 2.0, "log": True},
        "search.epochs": {"type": "int", "low": 2, "high": 20, "step": 3},
        "ablation.loss": {"type": "categorical", "choices": ["none", "centered"]},
        "ablation.weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"ablation.loss": ["centered"]}},
    }
)

#: Trials of a study that a law looks at.
TRIALS = 7


def sweep_of(name: str, seed: int = 1) -> SweepConfig:
    """A sweep whose searcher has this name, and learns from results once there are two trials."""
    return resolve_sweep({"seed": seed, "space": dict(SPACE), "tune": {"searcher": name, "num_startup_trials": 2}})


def go_on(config: SweepConfig, stored: Sequence[str], count: int) -> list[str]:
    """Let a study go on from the files of its trials until it has `count` trials, which end in every possible way.

    Args:
        config: the configuration of the sweep.
        stored: the contents of the files of the trials that there are.
        count: how many trials the study has at the end.

    Returns:
        The contents of the files of all trials.
    """
    space, trials = config.build_space(), list(stored)
    for number in range(len(trials), count):
        ended = [frozen(json.loads(text), dict(space.distributions), config.tune, [0.1]) for text in trials]
        params, notes = propose(space, config.tune, config.seed, number, ended, {})
        state = {1: "PRUNED", 3: "FAILED"}.get(number, "COMPLETED")
        value = {f"derived/{ACCURACY}": params.get("search.w_zero_one", 0.0) / 2}
        record = {"number": number, "trial_id": f"{number:05d}", "state": state, "params": params, "searcher": notes}
        record |= {"objectives": value if state == "COMPLETED" else None, "seconds": 1.0}
        trials.append(json.dumps(record | {"begun": "2026-01-01T00:00:00+00:00"}))
    return trials


def params_of(trials: Sequence[str]) -> list[dict[str, Any]]:
    """The parameters that were proposed, as the files of the trials have them."""
    return [json.loads(text)["params"] for text in trials]


def follows_its_seed(name: str) -> None:
    """The same seed gives the same proposals, whatever was proposed in between; another seed gives others.

    A value outside of the space is refused by `propose`.
    """
    first, other, again = (params_of(go_on(sweep_of(name, seed), [], TRIALS)) for seed in (1, 2, 1))
    differing = [number for number in range(TRIALS) if first[number] != again[number]]
    if differing:
        raise Broken(f"trial {differing[0]} of a second study with the same seed has other settings")
    if first == other:
        raise Broken("studies of two seeds have the same trials")


def goes_on_as_undisturbed(name: str) -> None:
    """A study that is stopped after some trials and goes on gets the same trials as a study that is never stopped.

    So all that the searcher knows is in the files of the trials.
    """
    config = sweep_of(name)
    whole = go_on(config, [], TRIALS)
    for kept in (1, TRIALS - 2):
        go_on(sweep_of(name, 2), [], 2)
        resumed = go_on(config, whole[:kept], TRIALS)
        differing = [number for number in range(TRIALS) if resumed[number] != whole[number]]
        if differing:
            raise Broken(f"stopped after {kept} trials and gone on, trial {differing[0]} has other settings")


def builds_a_sampler(name: str) -> None:
    """The searcher builds a sampler of Optuna's, and a new one for every trial."""
    from ..settings.searchers import SEARCHERS

    tune = sweep_of(name).tune
    first, second = (SEARCHERS[name].build(seed, tune) for seed in (1, 1))
    if not isinstance(first, optuna.samplers.BaseSampler):
        raise Broken(f"it builds {first!r}, which is no optuna.samplers.BaseSampler")
    if first is second:
        raise Broken("it builds one sampler for several trials, which remembers what another process would not")


#: By kind of entry, each law in a few words, as in `ddarts_core.extension.conformance`.
LAWS: Mapping[str, Laws] = MappingProxyType(
    {
        "searcher": (
            ("builds a new sampler of Optuna's for every trial", builds_a_sampler),
            ("proposes within the space, the same with the same seed", follows_its_seed),
            ("goes on after a stop as if there had been none", goes_on_as_undisturbed),
        )
    }
)
