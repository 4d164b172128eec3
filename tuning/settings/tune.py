"""The group `tune` of a sweep: how many trials, where they run, who proposes and stops them, and what is sought."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ddarts_core.ground.errors import unknown_name
from ddarts_core.ground.validation import Strict
from ddarts_core.studies.study_files import TRANSFER_OBJECTIVE

from .distributions import Scalar
from .searchers import SEARCHERS

SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {
        "asha": "stops a trial whose held-out accuracy is not in the best 1/reduction_factor at a rung",
        "hyperband": "asynchronous HyperBand: ASHA in brackets that begin to stop trials later and later",
        "fifo": "every trial runs to its end",
        "median": "stops a trial that is worse than the median of three or more others at the same epoch",
        "pbt": "population based training: a trial that is behind goes on from one that is ahead, perturbed",
    }
)
"""The names of the schedulers and what each is; `schedulers.SCHEDULER_FACTORIES` builds them."""

ACCURACY = "held_out/accuracy"
RECALIBRATED = "held_out/recalibration_batches"
SEARCH_EPOCH = "search_epoch"

TIME_SPENT = "time budget of {:g} s spent"
"""The reason that a trial's file gives when the trial was stopped because the time was spent."""


def was_cut_short(trial: Mapping[str, Any]) -> bool:
    """Whether a trial was stopped because the time of the sweep was spent, and not for what it had reached."""
    return str(trial["reason"]).startswith(TIME_SPENT.partition("{")[0])


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
    objective: Literal["derived", "supernet", "transfer"] = Field(
        "derived",
        description="What ranks trials. derived: the accuracy of the derived network on the held-out images, after "
        "`retrain`. supernet: that of the supernet. transfer: the box AP of a detector that has this network, after "
        "`retrain` and the fine-tuning of `transfer`.",
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
        2,
        ge=0,
        description="How often a trial is started again, from its last checkpoint, after its process died or raised an "
        "error.",
    )
    max_failures_alike: int | None = Field(
        3, ge=1, description="How many trials may fail for the same reason before the sweep stops. null never stops it."
    )

    @field_validator("searcher")
    @classmethod
    def _known_searcher(cls, value: str) -> str:
        SEARCHERS.known(value)
        return value

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, value: str) -> str:
        if value not in SCHEDULERS:
            raise unknown_name("scheduler", value, SCHEDULERS)
        return value

    @property
    def fixed_resources(self) -> ResourcesConfig:
        """The resources of a trial, once the sweep has replaced `auto`."""
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
    if objective == "transfer":
        return TRANSFER_OBJECTIVE
    return f"derived/held_out/{metric}" if objective == "derived" else f"held_out/{metric}"
