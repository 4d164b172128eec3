"""More trials in a study that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import get_path, leaves, set_path
from ddarts_core.studies.shell import ddarts

from ..searchers.journal import JOURNAL
from ..settings.budget import tune_of
from ..settings.config import SweepConfig
from ..settings.reread import BUDGET, EPOCHS, reread, unvisited
from ..settings.space import base_settings, build_space
from ..settings.tune import LimitsConfig
from ..store import plugins
from ..store.study import Study, find_study, hold, num_begun
from ..tracking import study_run as tracking
from .callback import Session
from .events import Listener
from .images import check_images, settle_images
from .rebuild import ensure_tracked
from .sweep import StudyResult, check_address, prepare, resume_sweep, run, stored_config

LASTING = ("objective", "second_objective", "limits", "latency")
"""Settings of `tune` that all trials of a study share."""

BEFORE = {"limits": LimitsConfig().model_dump(), "latency": None}
"""The values of a study that was begun before there were such settings."""

APART = "pbt"
"""The scheduler that a study can neither leave nor take up: no other trial can be compared with the members of a
population."""


def extend_sweep(
    config: SweepConfig,
    num_samples: int | None = None,
    *,
    draw: tracking.Draw | None = None,
    listener: Listener | None = None,
    num_cpus: int | None = None,
    address: str | None = None,
) -> StudyResult:
    """Run more trials in a study that exists; a study that was stopped is brought to its end first.

    The trials that ended are kept: the searcher has learnt from them, and a scheduler compares the new trials with
    them. The study takes over from `config` the first points that are new, the space, the numbers of epochs, the
    searcher, the scheduler and the resources. The trials that a stopped study still has to do take over only how trials
    run (`sweep.CORRIGIBLE`) and where the images are, so that a corrected file repairs the study. Which earlier trials
    still count is noted, see `reread`.

    Args:
        config: the configuration of a sweep with the same name, settings and objectives.
        num_samples: how many trials to add; None stands for those of `num_more`.
        draw: a function that draws the picture of a genotype into a file; None logs no pictures.
        listener: a function that is told of every trial's progress.
        num_cpus: how many cores Ray may use; None means all.
        address: the address of a Ray cluster; None starts Ray on this machine.

    Raises:
        UserError: the study has other settings than `config`, no trial fits on the machines, or another process runs
            the study. The study then stays as it is.
    """
    study = find_study(config.study_location)
    check_address(study.location, address)
    plugins.check(study)
    space = config.build_space()
    check_same(study, config)
    other = goes_on_otherwise(study, config)
    before = study.data["config"]["tune"]["searcher"]
    if before != config.tune.searcher == "grid":  # what is left of it is known at the end of what was begun
        other.append(f"tune.searcher ({before} there, grid now)")
    if other and study.data["state"] != "FINISHED":
        raise UserError(
            f"study {study.name!r} was stopped, and the file has another {', '.join(other)}: bring it to its end first "
            f"with `{ddarts('resume', study.location)}`; then it gets new trials of another kind"
        )
    more = num_more(study, config, num_samples)
    if config.tune.scheduler == APART and more:
        raise UserError(f"study {study.name!r} is a population and gets no new members: use --new or --set name=...")
    if study.data["state"] != "FINISHED":
        result = resume_sweep(
            study.location, corrected=config, draw=draw, listener=listener, num_cpus=num_cpus, address=address
        )
        if result.interrupted or not more:
            return result
    with hold(find_study(study.location)) as held:
        held = ensure_tracked(held)
        check_images(held, config, address)
        ready = prepare(config, space, num_cpus, address)
        added = _add_round(settle_images(held, config), ready, more)
        stored = stored_config(added)
        return run(added, stored, space, Session(draw, listener), address)


def num_more(study: Study, config: SweepConfig, num_samples: int | None = None) -> int:
    """How many trials a sweep of `config` adds to a study.

    A study that is finished gets as many as `config` asks for, but a grid gets no more than the points that no trial
    has visited. A study that was stopped gets none.

    Args:
        study: the study.
        config: the configuration of a sweep of the same name.
        num_samples: the number that is wanted instead.

    Raises:
        UserError: the grid has not so many points that no trial has visited, or none at all.
    """
    stopped = study.data["state"] != "FINISHED"  # and then its searcher is that of `config`, if this is a grid
    more = num_samples or (0 if stopped else config.tune.num_samples)
    if not more or config.tune.searcher != "grid":
        return more
    space, tune, trials = config.build_space(), study.data["config"]["tune"], study.trials()
    moved = goes_on_otherwise(study, config)
    earlier = _earlier(study, config, base_settings(config)) if moved else study.data.get("earlier", {})
    left = len(unvisited(space, {**study.data, "earlier": earlier}, trials))
    if stopped:
        left -= tune["num_samples"] - num_begun(trials)  # which are visited first
    more = num_samples or min(more, left)
    if not 0 < more <= left:
        size = len(space.grid())
        raise UserError(
            f"study {study.name!r} cannot get {num_samples or config.tune.num_samples} trials more: its grid has "
            f"{size} points, {size - left} of them visited"
        )
    return more


def _add_round(study: Study, config: SweepConfig, more: int) -> Study:
    """Note that there are more trials to do, before Ray knows of them: a sweep that is killed later can be resumed."""
    stored, rounds = study.data["config"], study.rounds
    known, trials = stored["tune"]["points_to_evaluate"], study.trials()
    points = [
        dict(point)
        for point in config.tune.points_to_evaluate
        if point not in known and not any(point.items() <= trial["params"].items() for trial in trials)
    ]
    tune = config.model_dump(mode="json")["tune"]
    tune |= {"num_samples": num_begun(trials) + more, "points_to_evaluate": [*known, *points]}
    added = {"num_samples": more, "points_to_evaluate": points}
    base = set_path(study.data["base"], "data.num_workers", config.data.num_workers)
    fields: dict[str, Any] = {"config": {**stored, "tune": tune}, "rounds": [*rounds, added]}
    if goes_on_otherwise(study, config):
        shown = {name: stored[name] for name in ("name", "storage", "tracking")}
        places = {name: study.data["base"].get(name, stored[name]) for name in ("name", "storage")}
        base = set_path({**base_settings(config), **places}, "data.num_workers", config.data.num_workers)
        # The points of before were given to trials that ended; today's space need not hold them.
        tune["points_to_evaluate"] = points
        fields = {
            "config": {**config.model_dump(mode="json"), **shown, "tune": tune},
            "rounds": [*({**each, "points_to_evaluate": []} for each in rounds), added],
            "earlier": _earlier(study, config, base),
        }
        (study.path / JOURNAL).unlink(missing_ok=True)  # its trials had other parameters: it is made again
    return study.update(base=base, **fields, state="INTERRUPTED")


def _earlier(study: Study, config: SweepConfig, base: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of each earlier trial of a study for the trials that `config` adds, see `reread`."""
    space, before = build_space(config.space, base), tune_of(study.data)
    return {trial["trial_id"]: reread(trial, space, config.tune, before) for trial in study.trials()}


def goes_on_otherwise(study: Study, config: SweepConfig) -> list[str]:
    """What differs between new trials and those of a study: numbers of epochs, the budget, parameters of the space."""
    old, new = study.data["config"], config.model_dump(mode="json")
    settings = (stored_config(study).model_dump(mode="json"), new)
    given = (
        {**{path: get_path(each, path) for path in EPOCHS}, "tune": {name: each["tune"][name] for name in BUDGET}}
        for each in settings
    )
    return [*_differing(*given), *_differing({"space": old["space"]}, {"space": new["space"]})]


def check_same(study: Study, config: SweepConfig) -> None:
    """Check that trials of `config` may be added to a study.

    Raises:
        UserError: the study has other objectives or other settings. Or it has another space or other numbers of epochs,
            and the trials of the study or of `config` are those of a population.
    """
    old, new = study.data["config"], config.model_dump(mode="json")
    apart = ["scheduler"] if APART in (old["tune"]["scheduler"], new["tune"]["scheduler"]) else []
    parts = ({**BEFORE, **c["tune"]} for c in (old, new))
    lasting = [{"tune": {name: part[name] for name in (*LASTING, *apart)}} for part in parts]
    moved = goes_on_otherwise(study, config) if apart else []
    places = ("name", "storage", "data.root", "data.num_workers")
    free = {path: None for path in (*EPOCHS, *old["space"], *new["space"], *places)}
    configs = (stored_config(study), config)
    given = {path for each in configs for path, value in leaves(base_settings(each)) if value != {}}
    in_force = (dict(leaves(each.model_dump(mode="json"))) for each in configs)
    flat = ({**{path: value for path, value in each.items() if path in given}, **free} for each in in_force)
    transfers = ({"transfer": each.get("transfer", {})} for each in (old, new))
    differing = [*moved, *_differing(*lasting), *_differing(*flat), *_differing(*transfers)]
    if differing:
        raise UserError(
            f"study {study.name!r} exists with another {', '.join(differing)}: only trials of the same settings can be "
            "added; keep them, or start another study with --new or --set name=..."
        )


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The settings that differ, with their values before and after."""
    old, new = dict(leaves(before)), dict(leaves(after))
    return [
        f"{path} ({old.get(path, 'not set')} there, {new.get(path, 'not set')} now)"
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]
