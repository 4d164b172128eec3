"""The configuration of a sweep: an experiment with a search space, how to run its trials, and where to track them.

No Ray, Optuna, MLflow or torch here, so that a mistake is told at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ddarts_core.ground.errors import UserError, unknown_name
from ddarts_core.ground.nested import override, read_yaml
from ddarts_core.ground.redact import without_secrets
from ddarts_core.ground.validation import NAME, Strict, field_paths
from ddarts_core.settings.config import ExperimentConfig, resolve

from ..store.mirror import check_storage, is_uri, run_folder
from .population import check_population
from .space import Distribution, Scalar, Space, base_settings, build_space, check_points

SEARCHERS: Mapping[str, str] = MappingProxyType(
    {
        "optuna-tpe": "Optuna's tree-structured Parzen estimator, multivariate; any space, one or two objectives",
        "optuna-nsga2": "Optuna's NSGA-II; for two objectives and many trials",
        "optuna-gp": "Optuna's Gaussian process; draws settings with a `when` at random",
        "optuna-botorch": "Optuna's BoTorch sampler, if botorch is installed; draws settings with a `when` at random",
        "random": "independent draws, seeded",
        "grid": "every combination of a space of categorical and int parameters, once",
    }
)
"""Searcher names and what they are; `searcher.SAMPLERS` builds them."""

EXTRA_PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType({"optuna-botorch": ("botorch", "optuna_integration")})
"""What a searcher needs beside the project's own packages."""

SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {
        "asha": "stops a trial whose held-out accuracy is not in the best 1/reduction_factor at a rung",
        "hyperband": "asynchronous HyperBand: ASHA in brackets that begin to stop trials later and later",
        "fifo": "every trial runs to its end",
        "median": "stops a trial that is worse than the median of three or more others at the same epoch",
        "pbt": "population based training: a trial that is behind goes on from one that is ahead, perturbed",
    }
)
"""Scheduler names and what they are; `schedulers.SCHEDULER_FACTORIES` builds them."""

URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""Environment variable: MLflow's own name for the store that is used when `tracking.uri` is not given."""

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
"""Environment variable: MLflow's own name for the experiment that is used when `tracking.experiment` is not given."""

ACCURACY = "held_out/accuracy"
RECALIBRATED = "held_out/recalibration_batches"
SEARCH_EPOCH = "search_epoch"
VALIDATION = "retrain.validation_fraction"
RECALIBRATION = "search.recalibration_batches"
SHAPLEY = "ablation.shapley_permutations"


class ResourcesConfig(Strict):
    """What one trial takes. With fractions, several trials share a core or a GPU."""

    cpu: float = Field(
        1.0,
        gt=0,
        le=1024,
        description="How many cores a trial takes. Processes that read images count (data.num_workers).",
    )
    gpu: float = Field(
        0.0,
        ge=0,
        description="Which share of one GPU a trial takes, at most 1. A fraction also limits the trial to that "
        "share of the GPU's memory.",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="How many threads compute. null takes as many as there are whole cores."
    )

    @field_validator("gpu")
    @classmethod
    def _one_at_most(cls, value: float) -> float:
        if value > 1:
            raise ValueError(
                f"gpu {value:g}: a search uses one GPU: give at most 1; several GPUs train a network that was found: "
                "`ddarts retrain GENOTYPE --num-workers N`"
            )
        return value


class LimitsConfig(Strict):
    """How large a derived network may be. A trial beyond a limit is ranked behind all trials within."""

    parameters: int | None = Field(
        None,
        ge=1,
        description="Most parameters of the derived network, without the auxiliary head. null sets no limit.",
    )
    macs: int | None = Field(
        None, ge=1, description="Most multiply-adds of the derived network for one image. null sets no limit."
    )
    latency_ms: float | None = Field(
        None,
        gt=0,
        description="Longest forward pass of the derived network in ms: the median that tune.latency measures. "
        "null sets no limit.",
    )


class LatencyConfig(Strict):
    """How a trial measures the forward pass of its derived network when its search is over."""

    runtime: Literal["torch", "onnxruntime"] = Field("torch", description="What runs the network while it is measured.")
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where the network runs while it is measured. onnxruntime runs on the CPU."
    )
    batch: int = Field(1, ge=1, le=65536, description="How many images one pass takes.")
    threads: int = Field(
        1, ge=1, le=1024, description="How many threads of the CPU run the network while it is measured."
    )
    passes: int = Field(
        50, ge=5, le=100_000, description="How many passes are measured. A few passes before them are not."
    )

    @model_validator(mode="after")
    def _possible(self) -> LatencyConfig:
        if self.runtime == "onnxruntime" and self.device != "cpu":
            raise ValueError("onnxruntime is measured on the CPU: set device to cpu, or runtime to torch")
        return self


class TuneConfig(Strict):
    """How many trials there are, what they run on, what proposes and stops them, and what is sought."""

    num_samples: int = Field(8, ge=1, le=1_000_000, description="How many trials the sweep runs.")
    max_concurrent: int | None = Field(
        None, ge=1, description="How many trials run at a time. null runs as many as the machines have room for."
    )
    resources: ResourcesConfig | Literal["auto"] = Field(
        ResourcesConfig(),
        description="What one trial takes. auto takes the share of a GPU that the trial's estimated memory needs.",
    )
    searcher: str = Field("optuna-tpe", description="What proposes the settings of a trial.")
    num_startup_trials: int = Field(
        10, ge=1, description="How many trials are drawn at random before the searcher learns from results."
    )
    scheduler: str = Field("asha", description="What stops trials early.")
    grace_period: int = Field(
        1, ge=1, description="How many search epochs, warm-up included, a trial has before it may be stopped."
    )
    reduction_factor: float = Field(
        3.0, gt=1, le=100, description="For asha and hyperband: at each rung, one trial in so many goes on."
    )
    exchange_every: int = Field(
        1, ge=1, description="For pbt: how many search epochs pass from one exchange to the next."
    )
    exchanged: float = Field(
        0.25,
        gt=0,
        le=0.5,
        description="For pbt: which share of the trials is replaced at an exchange. As many trials are copied.",
    )
    objective: Literal["derived", "supernet"] = Field(
        "derived",
        description="Which accuracy on the held-out images ranks trials: that of the derived network after "
        "`retrain`, or that of the supernet.",
    )
    metric: Literal["accuracy", "balanced_accuracy"] = Field(
        "accuracy",
        description="Which accuracy is sought, compared and ranked by. balanced_accuracy is the mean over the "
        "classes of the share of their images that is right.",
    )
    second_objective: Literal["parameters", "macs", "latency_ms"] | None = Field(
        None, description="What is made small beside the large accuracy. null seeks the accuracy alone."
    )
    limits: LimitsConfig = LimitsConfig()
    latency: LatencyConfig | None = Field(
        None, description="How each trial measures the forward pass of its network. null measures nothing."
    )
    points_to_evaluate: list[dict[str, Scalar]] = Field(
        default_factory=list,
        description="Settings of the first trials, one mapping for each; the searcher proposes the others.",
    )
    budget: Literal["epochs", "multiply-adds", "seconds"] = Field(
        "epochs",
        description="What the searches of all trials have alike: the epochs that each trial's settings say; as "
        "many epochs as budget_amount multiply-adds pay for; or the epochs that begin within "
        "budget_amount seconds.",
    )
    budget_amount: float | None = Field(
        None,
        gt=0,
        description="How many multiply-adds or seconds the search of each trial gets. null with the budget epochs.",
    )
    time_budget_s: float | None = Field(
        None,
        gt=0,
        description="After so many seconds each trial ends with the epoch that it is in, and no trial begins. A "
        "resumed sweep has the full time again.",
    )
    max_failures: int = Field(
        2, ge=0, description="How often a trial whose process died is started again, from its last checkpoint."
    )
    max_failures_alike: int | None = Field(
        3, ge=1, description="How many trials may fail for the same reason before the sweep stops. null never stops it."
    )

    @field_validator("searcher")
    @classmethod
    def _known_searcher(cls, value: str) -> str:
        if value not in SEARCHERS:
            raise unknown_name("searcher", value, SEARCHERS)
        return value

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str) -> str:
        if value not in SCHEDULERS:
            raise unknown_name("scheduler", value, SCHEDULERS)
        return value

    @property
    def fixed_resources(self) -> ResourcesConfig:
        """What a trial takes, once a sweep has replaced `auto`."""
        assert self.resources != "auto", "a sweep replaces auto before it starts"
        return self.resources

    @property
    def objectives(self) -> tuple[tuple[str, str], ...]:
        """Metric and mode (`max` or `min`) of each objective, the accuracy first."""
        first = (objective_of(self.objective, self.metric), "max")
        return (first,) if self.second_objective is None else (first, (self.second_objective, "min"))


def supernet_metric(tune: Mapping[str, Any]) -> str:
    """The supernet's metric that schedulers compare, by the stored settings of `tune`; older ones have no `metric`."""
    return f"held_out/{tune.get('metric', 'accuracy')}"


def objective_of(objective: str, metric: str) -> str:
    """Name of the first objective, by `tune.objective` and `tune.metric`."""
    return f"derived/held_out/{metric}" if objective == "derived" else f"held_out/{metric}"


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
        """The same without the secrets of its tracking URI: what is printed and stored."""
        uri = self.tracking.uri and without_secrets(self.tracking.uri)
        return self.model_copy(update={"tracking": self.tracking.model_copy(update={"uri": uri})})

    @property
    def study_location(self) -> str:
        """The study's folder, absolute, or its URI."""
        if is_uri(self.storage):
            return f"{self.storage}/{self.name}"
        return str((Path(self.storage).expanduser() / self.name).absolute())

    @property
    def study_dir(self) -> Path:
        """Folder that the study's sweep works in, absolute: the study's own, or a copy of what is in a store."""
        return run_folder(self.study_location)


def load_sweep(path: str | Path, overrides: Iterable[str] = ()) -> SweepConfig:
    """Read, merge and validate a sweep file, its space included.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    return resolve_sweep(read_yaml(path), overrides, where=str(path))


def resolve_sweep(data: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "configuration") -> SweepConfig:
    """The same for settings that are already read.

    Raises:
        UserError: a setting is wrong.
    """
    overrides = list(overrides)
    config = resolve(data, overrides, SweepConfig, where=where)
    for name, variable in (("uri", URI_VARIABLE), ("experiment", EXPERIMENT_VARIABLE)):
        if name not in config.tracking.model_fields_set and (text := os.environ.get(variable)):
            overrides.append(override(f"tracking.{name}", text))
            config = resolve(data, overrides, SweepConfig, where=where)
    root = Path(config.data.root).expanduser()
    if root.exists():  # a trial's process runs in a folder of its own
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": str(root.absolute())})})
    start = config.search.start
    if start is not None and Path(start).exists():
        config = config.model_copy(
            update={"search": config.search.model_copy(update={"start": str(Path(start).absolute())})}
        )
    try:
        space = config.build_space()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    missing = [name for name in EXTRA_PACKAGES.get(config.tune.searcher, ()) if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{where}: tune.searcher {config.tune.searcher} needs the packages that are not installed here "
            f"({', '.join(missing)}): pip install botorch optuna-integration, or choose another searcher"
        )
    if config.retrain.validation_fraction or VALIDATION in config.space:
        raise UserError(
            f"{where}: {VALIDATION} has no place in a sweep, whose trials are scored after their last epoch on the "
            "held-out images: leave it out, and give it to ddarts retrain"
        )
    _check_latency(config, where)
    _check_statistics(config, where)
    _check_budget(config, where)
    _check_devices(config, where)
    if is_uri(config.storage):
        _check_store(config, where)
    if config.tune.scheduler == "pbt":
        return _population(config, space, data, overrides, where)
    if config.tune.searcher == "grid":
        size = len(space.grid())
        if config.tune.points_to_evaluate:
            raise UserError(f"{where}: tune.points_to_evaluate has no place in a grid, which visits every point")
        if "num_samples" not in config.tune.model_fields_set:
            config = resolve(data, [*overrides, f"tune.num_samples={size}"], SweepConfig, where=where)
        elif config.tune.num_samples > size:
            raise UserError(f"{where}: tune.num_samples {config.tune.num_samples} exceeds the {size} grid points")
    return config


def _check_latency(config: SweepConfig, where: str) -> None:
    """Check that a latency that counts is measured, where that is possible."""
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
    """Check that no trial is compared by an accuracy that lags behind its weights."""
    drawn = config.space.get(RECALIBRATION)
    numbers = [config.search.recalibration_batches, *(() if drawn is None else drawn.corners())]
    if 0 in numbers and config.tune.scheduler != "fifo":
        raise UserError(
            f"{where}: {RECALIBRATION} 0 scores by running statistics, which lag behind the weights, and "
            f"tune.scheduler {config.tune.scheduler} would stop trials for the lag: use 1 or more, or scheduler fifo"
        )


def _check_budget(config: SweepConfig, where: str) -> None:
    """Check that what the trials shall have alike can be given to them."""
    tune = config.tune
    if tune.budget == "epochs":
        if tune.budget_amount is not None:
            raise UserError(
                f"{where}: tune.budget_amount has no place with tune.budget epochs, which search.epochs and "
                "search.warmup_epochs say: leave it out, or choose budget multiply-adds or seconds"
            )
        return
    if tune.budget_amount is None:
        raise UserError(f"{where}: tune.budget {tune.budget} needs tune.budget_amount: so many in each trial's search")
    if tune.scheduler != "fifo":
        raise UserError(
            f"{where}: tune.budget {tune.budget} gives every search its whole budget, and tune.scheduler "
            f"{tune.scheduler} would take it from some after so many epochs: use scheduler fifo"
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
        UserError: it goes from one network to the next, decides step by step, or has something to do in its last
            epoch, which is not known.
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
    """Check that a trial is given the GPU that it asks for; Ray shows it no other."""
    resources = config.tune.resources
    for path, device in (("search.device", config.search.device), ("retrain.device", config.retrain.device)):
        if ":" in device:
            raise UserError(f"{where}: {path} {device}: a trial sees only the GPU that Ray gives it: use auto or cuda")
        if device == "cuda" and resources != "auto" and not resources.gpu:
            raise UserError(
                f"{where}: {path} cuda, but trials get no GPU: set tune.resources.gpu or tune.resources=auto"
            )


def _check_store(config: SweepConfig, where: str) -> None:
    """Check that a sweep can do with an object store."""
    if config.tracking.uri is None:
        raise UserError(
            f"{where}: with storage {config.storage} name an MLflow server in tracking.uri, for example "
            "http://127.0.0.1:5000 after `mlflow server`: the default is a database in the study's folder, and a store "
            "keeps none"
        )


def _population(
    config: SweepConfig, space: Space, data: Mapping[str, Any], overrides: list[str], where: str
) -> SweepConfig:
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
    return resolve(data, [*overrides, "tune.searcher=random"], SweepConfig, where=where)
