"""The configuration of a sweep: an experiment with a search space, how to run its trials, and where to track them.

This module imports no Ray, Optuna, MLflow or torch, so that a mistake is told at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import override, read_yaml
from ddarts_core.ground.redact import without_secrets
from ddarts_core.ground.validation import NAME, Strict, field_paths
from ddarts_core.settings.config import ExperimentConfig, resolve

from ..store.backend import Folder, below
from ..store.mirror import check_storage
from .distributions import AnyDistribution, CategoricalDistribution, Distribution
from .population import check_population
from .score import check_form, score_config, stored
from .searchers import SEARCHERS
from .space import Space, base_settings, build_space, check_points
from .tune import TuneConfig

URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable: MLflow's own name for the store that is used when `tracking.uri` is not given."""

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
"""Environment variable: MLflow's own name for the experiment that is used when `tracking.experiment` is not given."""

VALIDATION = "retrain.validation_fraction"
RECALIBRATION = "search.recalibration_batches"
SHAPLEY = "ablation.shapley_permutations"


class TrackingConfig(Strict):
    """Where MLflow keeps the runs."""

    uri: str | None = Field(
        None,
        description="Where MLflow keeps the runs. If it is not given, MLFLOW_TRACKING_URI counts, if there is "
        "one. null is a sqlite database in the study's folder.",
    )
    experiment: str | None = Field(
        None,
        min_length=1,
        description="The MLflow experiment. If it is not given, MLFLOW_EXPERIMENT_NAME counts, if there is one. "
        "null takes the study's name.",
    )
    log_artifacts: bool = Field(
        True, description="Whether MLflow also gets files: genotypes as JSON and as pictures, and the report."
    )
    system_metrics: bool = Field(
        False,
        description="Whether MLflow also gets its system metrics of each trial's machine: cores, memory, disk, "
        "network, and GPUs if the package nvidia-ml-py is there. The study's folder does not hold them.",
    )


class SweepConfig(ExperimentConfig):
    """The contents of a sweep file: an experiment and `space`, `tune`, `tracking`."""

    name: str = Field("sweep", pattern=NAME, description="The name of the study and of its folder.")
    space: dict[str, Distribution] = Field(
        default_factory=dict,
        description="Settings that differ between trials: dotted path -> {type: float or int, low, high, log, "
        "step} or {type: categorical, choices}. Add `when: {path: [values]}` to a setting that "
        "depends on another one. See docs/sweeps.md.",
    )
    tune: TuneConfig = TuneConfig()
    tracking: TrackingConfig = TrackingConfig()
    transfer: dict[str, Any] = Field(
        default_factory=dict,
        description="For tune.objective transfer: settings of the fine-tuning, as `ddarts transfer` has them, and "
        "score_fraction, the share of the images that scores. See docs/transfer.md.",
    )

    def build_space(self) -> Space:
        """The checked search space.

        Raises:
            UserError: the space is empty or does not fit the configuration, or a point lies outside it.
        """
        if not self.space:
            raise UserError("a sweep needs a `space`: name at least one setting and its distribution")
        space = build_space(self.space, base_settings(self))
        check_points(space, self.tune.points_to_evaluate)
        return space

    @field_validator("space", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        for name, inner in value.items() if isinstance(value, Mapping) else ():
            paths = [path for path in field_paths(ExperimentConfig) if path.startswith(f"{name}.")]
            keys = inner if isinstance(inner, Mapping) else {}
            if paths and "type" not in keys:
                example = next((path for path in paths if path.removeprefix(f"{name}.") in keys), paths[0])
                raise ValueError(f"{name!r} is a group: write the whole path of a setting as one key, like {example}")
        return value

    @field_validator("storage")
    @classmethod
    def _store(cls, value: str) -> str:
        return check_storage(value)

    @property
    def shown(self) -> SweepConfig:
        """The configuration without the secrets of its tracking URI, as it is printed and stored."""
        uri = self.tracking.uri and without_secrets(self.tracking.uri)
        return self.model_copy(update={"tracking": self.tracking.model_copy(update={"uri": uri})})

    @property
    def place(self) -> Folder:
        """The place of the study: a folder, or a URI in an object store."""
        return below(self.storage, self.name)

    @property
    def study_location(self) -> str:
        """The absolute path of the study's folder, or the study's URI."""
        return self.place.location

    @property
    def study_dir(self) -> Path:
        """The absolute path of the folder that the sweep works in: the study's own, or a copy of what is in a store."""
        return self.place.run_folder


def load_sweep(path: str | Path, overrides: Iterable[str] = ()) -> SweepConfig:
    """Read, merge and validate a sweep file, its space included.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    return resolve_sweep(read_yaml(path), overrides, where=str(path))


def resolve_sweep(data: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "configuration") -> SweepConfig:
    """Merge and validate the settings of a sweep that are already read, its space included.

    Raises:
        UserError: a setting is wrong.
    """
    overrides = list(overrides)
    config = resolve(data, overrides, SweepConfig, where=where)
    for name, variable in (("uri", URI_VARIABLE), ("experiment", EXPERIMENT_VARIABLE)):
        if name not in config.tracking.model_fields_set and (text := os.environ.get(variable)):
            overrides.append(override(f"tracking.{name}", text))
            config = resolve(data, overrides, SweepConfig, where=where)
    config = _anchored(config)
    try:
        space = config.build_space()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    packages = SEARCHERS[config.tune.searcher].packages
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(
            f"{where}: tune.searcher {config.tune.searcher} needs the packages that are not installed here "
            f"({', '.join(missing)}): pip install {' '.join(packages).replace('_', '-')}, or choose another searcher"
        )
    if config.retrain.validation_fraction or VALIDATION in config.space:
        raise UserError(
            f"{where}: {VALIDATION} has no place in a sweep, whose trials are scored after their last epoch on the "
            "held-out images: leave it out, and give it to ddarts retrain"
        )
    if config.tune.objective == "transfer":
        config = config.model_copy(update={"transfer": stored(score_config(config.transfer, where))})
        check_form(config, where)
    elif config.transfer:
        raise UserError(f"{where}: transfer has no place with tune.objective {config.tune.objective}: leave it out")
    _check_latency(config, where)
    _check_statistics(config, where)
    _check_budget(config, where)
    _check_devices(config, where)
    _check_database(config, where)
    if config.tune.scheduler == "pbt":
        return _population(config, space, where)
    if config.tune.searcher == "grid":
        size = len(space.grid())
        if config.tune.points_to_evaluate:
            raise UserError(f"{where}: tune.points_to_evaluate has no place in a grid, which visits every point")
        if "num_samples" not in config.tune.model_fields_set:
            return _with(config, "tune", num_samples=size)
        if config.tune.num_samples > size:
            raise UserError(f"{where}: tune.num_samples {config.tune.num_samples} exceeds the {size} grid points")
    return config


def _with(config: SweepConfig, group: str, **fields: Any) -> SweepConfig:
    """The configuration with other values, which are not checked, in a group."""
    return config.model_copy(update={group: getattr(config, group).model_copy(update=fields)})


FILES = ("data.root", "search.start")
"""Settings that may name a file or folder."""


def _anchored(config: SweepConfig) -> SweepConfig:
    """The configuration with absolute paths of the files and folders that there are, in its space and points too.

    A trial's process runs in a folder of its own, where a relative path would name something else.
    """

    def absolute(setting: str, value: Any) -> Any:
        path = Path(value).expanduser() if setting in FILES and isinstance(value, str) else None
        return value if path is None or not path.exists() else str(path.absolute())

    def anchored(setting: str, kind: AnyDistribution) -> AnyDistribution:
        found: dict[str, Any] = {"when": {of: [absolute(of, value) for value in kind.when[of]] for of in kind.when}}
        if isinstance(kind, CategoricalDistribution):
            found["choices"] = [absolute(setting, choice) for choice in kind.choices]
        return kind.model_copy(update=found)

    if (root := absolute("data.root", config.data.root)) != config.data.root:
        config = _with(config, "data", root=root)
    if (start := absolute("search.start", config.search.start)) != config.search.start:
        config = _with(config, "search", start=start)
    config = config.model_copy(update={"space": {path: anchored(path, kind) for path, kind in config.space.items()}})
    points = [{path: absolute(path, value) for path, value in each.items()} for each in config.tune.points_to_evaluate]
    return _with(config, "tune", points_to_evaluate=points) if points else config


def _check_latency(config: SweepConfig, where: str) -> None:
    """Check that a latency that counts is measured too, and that a trial's GPU and the installed packages suffice."""
    tune, latency = config.tune, config.tune.latency
    if latency is None:
        wanted = "limits.latency_ms" if tune.limits.latency_ms else ""
        wanted = "second_objective latency_ms" if tune.second_objective == "latency_ms" else wanted
        if wanted:
            raise UserError(
                f"{where}: tune.{wanted} needs tune.latency, how it is measured: for example "
                "{runtime: torch, device: cpu, batch: 1, threads: 1}"
            )
        return
    if latency.device == "cuda" and tune.resources != "auto" and not tune.resources.gpu:
        raise UserError(f"{where}: tune.latency.device cuda, but trials get no GPU: set tune.resources.gpu")
    packages = ("onnx", "onnxruntime", "onnxscript") if latency.runtime == "onnxruntime" else ()
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(
            f"{where}: tune.latency.runtime onnxruntime needs the packages that are not installed here "
            f"({', '.join(missing)}): pip install 'ddarts[onnx]', or choose torch"
        )


def _check_statistics(config: SweepConfig, where: str) -> None:
    """Check that trials are not compared by an accuracy that lags behind their weights."""
    drawn = config.space.get(RECALIBRATION)
    numbers = [config.search.recalibration_batches, *(() if drawn is None else drawn.corners())]
    if 0 in numbers and config.tune.scheduler != "fifo":
        raise UserError(
            f"{where}: {RECALIBRATION} 0 scores by running statistics, which lag behind the weights, and "
            f"tune.scheduler {config.tune.scheduler} would stop trials for that: use 1 or more, or scheduler fifo"
        )


def _check_budget(config: SweepConfig, where: str) -> None:
    """Check that the same budget can be given to every trial."""
    tune = config.tune
    if tune.budget == "epochs":
        if tune.budget_amount is not None:
            raise UserError(
                f"{where}: tune.budget_amount has no place with tune.budget epochs, which search.epochs and "
                "search.warmup_epochs say: leave it out, or choose budget multiply-adds or seconds"
            )
        return
    if tune.budget_amount is None:
        raise UserError(
            f"{where}: tune.budget {tune.budget} needs tune.budget_amount, which says how many each trial's search gets"
        )
    if tune.scheduler != "fifo":
        raise UserError(
            f"{where}: tune.budget {tune.budget} gives every search its whole budget, and tune.scheduler "
            f"{tune.scheduler} would stop some of them earlier: use scheduler fifo"
        )
    if tune.budget == "seconds":
        check_seconds(config, where, SHAPLEY in config.space)
    elif drawn := {"search.epochs", "search.warmup_epochs"} & set(config.space):
        raise UserError(
            f"{where}: {min(drawn)} has no place in the space with tune.budget multiply-adds, which says how many "
            "epochs a trial has"
        )


def check_seconds(config: ExperimentConfig, where: str = "tune.budget seconds", shapley: bool = False) -> None:
    """Check that a search may end after any of its last stage's epochs.

    Raises:
        UserError: the search goes from one network to the next, decides step by step, or has something to do in its
            last epoch, which is not known beforehand.
    """
    from ddarts_core.search.stages import Course

    if any(stage.fresh or stage.kept or stage.decides for stage in Course(config).stages[1:]):
        raise UserError(
            f"{where}: search.stages {config.search.stages} goes from one network or decision to the next, and seconds "
            "may be spent before the last: use tune.budget epochs or multiply-adds"
        )
    if shapley or config.ablation.shapley_permutations:
        raise UserError(
            f"{where}: {SHAPLEY} is for the last epoch, which is not known before seconds are spent: set it to 0, or "
            "use tune.budget epochs or multiply-adds"
        )


def _check_devices(config: SweepConfig, where: str) -> None:
    """Check that a trial is given the GPU that it asks for; Ray shows a trial no other GPU."""
    resources = config.tune.resources
    for path, device in (("search.device", config.search.device), ("retrain.device", config.retrain.device)):
        if ":" in device:
            raise UserError(f"{where}: {path} {device}: a trial sees only the GPU that Ray gives it: use auto or cuda")
        if device == "cuda" and resources != "auto" and not resources.gpu:
            raise UserError(
                f"{where}: {path} cuda, but trials get no GPU: set tune.resources.gpu or tune.resources=auto"
            )


def _check_database(config: SweepConfig, where: str) -> None:
    """Check that there is a place for MLflow's database."""
    if config.tracking.uri is None and not config.place.at_once:
        raise UserError(
            f"{where}: storage {config.storage} is an object store, which cannot hold MLflow's default database: name "
            "an MLflow server in tracking.uri, for example http://127.0.0.1:5000 after `mlflow server`"
        )


def _population(config: SweepConfig, space: Space, where: str) -> SweepConfig:
    """A sweep with `pbt`, which proposes by itself: Ray lets no searcher learn beside it."""
    tune, epochs = config.tune, config.search.warmup_epochs + config.search.epochs
    check_population(space, where)
    if tune.num_samples < 2:
        raise UserError(f"{where}: tune.scheduler pbt needs a population: tune.num_samples must be 2 or more")
    if tune.exchange_every >= epochs:
        raise UserError(f"{where}: tune.exchange_every {tune.exchange_every} must be less than the {epochs} epochs")
    if tune.max_concurrent is not None:
        raise UserError(f"{where}: tune.max_concurrent has no place with pbt, whose trials take turns: use resources")
    if "searcher" in tune.model_fields_set and tune.searcher != "random":
        raise UserError(
            f"{where}: tune.searcher {tune.searcher} cannot propose beside pbt: use random, or leave it out"
        )
    return _with(config, "tune", searcher="random")
