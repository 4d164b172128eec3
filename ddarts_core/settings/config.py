"""Typed configuration: every setting of a search, its defaults and bounds, YAML files and dotted overrides. Torch-free.

A setting may come from several places, and a later place of this list overrides an earlier one: the defaults of the
fields, what follows from `search.start`, the training recipe, the preset of the method (`methods.METHODS`), the file,
`--set`. The merged dictionary is validated as a whole: no setting enters a run unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, model_validator

from ..genotypes.enumeration import Enumeration
from ..genotypes.genotype import Genotype
from ..genotypes.spaces import default_reductions, operations_of
from ..ground.errors import UserError, unknown_name
from ..ground.nested import merge, parse_override, read_yaml, set_path
from ..ground.plugins import needed_by
from ..ground.validation import NAME, Strict, validate
from .data_settings import DataConfig
from .retrain_settings import RetrainConfig
from .search_settings import AblationConfig, AlphaConfig, DiscretiseConfig, SearchConfig
from .terms import in_one_form


class ExperimentConfig(Strict):
    """One search: the contents of an experiment file."""

    name: str = Field("search", pattern=NAME, description="The name of the folder that is written.")
    storage: str = Field(
        "runs", description="The folder in which that folder is made. For a sweep it may also be a URI."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Everything random follows from this number.")
    method: str = Field(
        "ddarts", description="The preset that the settings of the file are laid over. See `ddarts methods`."
    )
    data: DataConfig = DataConfig()
    search: SearchConfig = SearchConfig()
    alpha: AlphaConfig = AlphaConfig()
    ablation: AblationConfig = AblationConfig()
    discretise: DiscretiseConfig = DiscretiseConfig()
    retrain: RetrainConfig = RetrainConfig()

    @cached_property
    def given(self) -> Mapping[str, Any]:
        """The settings that a file and overrides gave, as far as they can be told, in groups.

        What the method, the recipe and the start imply is not among them, even where it has the same values.
        """
        return self.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, data: Any) -> Any:
        return in_one_form(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        from ..methods import PLANS, RULES, ablation_losses, parts_in_use

        groups = 2 if self.search.sharing == "normal_reduce" else self.search.num_cells
        if self.ablation.sample_cells is not None and self.ablation.sample_cells > groups:
            raise ValueError(f"ablation.sample_cells {self.ablation.sample_cells} exceeds the {groups} alpha groups")
        loss = ablation_losses().get(self.ablation.loss)
        for part in (*parts_in_use(self.search), *([loss] if loss else []), RULES[self.discretise.rule]):
            if refusal := part.refuse(self):
                raise ValueError(refusal)
        if self.search.number is not None:
            numbered(self)
        if self.search.probe:
            enumeration_of(self)
            stages, every = PLANS[self.search.stages](self.search).stages(), len(operations_of(self.search.space))
            if any(stage.kept is not None and stage.kept < every for stage in stages):
                raise ValueError(
                    f"search.probe scores genotypes of the whole space, but the last network of search.stages "
                    f"{self.search.stages} has only the operations that were kept: use search.probe 0"
                )
        if self.alpha.grad_mode == "published" and (self.search.order != "first" or self.ablation.loss != "monitor"):
            raise ValueError("alpha.grad_mode published runs only with search.order first and ablation.loss monitor")
        if self.search.order == "second" and self.ablation.loss not in ("none", "monitor"):
            raise ValueError(f"search.order second cannot use ablation.loss {self.ablation.loss}: use none or monitor")
        depth, positions = self.retrain.num_cells, self.search.reduction_positions
        deeper = self.search.sharing == "own" and depth is not None and depth > self.search.num_cells
        if deeper and self.retrain.reductions is None and positions != default_reductions(self.search.num_cells):
            raise ValueError(
                f"retrain.num_cells {depth} is derived by Algorithm 1, whose reduction cells were searched at n//3 and "
                f"2n//3: leave search.reductions {list(positions)} out, or keep the {self.search.num_cells} cells"
            )
        return self


def enumeration_of(config: ExperimentConfig) -> Enumeration:
    """Number the genotypes of a search's space, as `retrain` would train them.

    Raises:
        ValueError: all normal cells share one architecture, but a numbered genotype has individual cells.
        UserError: the space has too many genotypes.
    """
    search, retrain = config.search, config.retrain
    if search.sharing != "own":
        raise ValueError(f"numbered genotypes have individual cells: use search.sharing own, not {search.sharing}")
    as_searched = retrain.num_cells in (None, search.num_cells)  # deeper networks repeat cell 0 where inputs differ
    alike = retrain.form == "cifar" and as_searched
    return Enumeration(search.space, search.steps, search.num_cells, search.reduction_positions, alike)


def numbered(config: ExperimentConfig) -> Genotype:
    """Return the genotype that `search.number` names.

    Raises:
        ValueError: the space has no genotype of this number, or `enumeration_of` raises it.
        UserError: see `enumeration_of`.
    """
    every, number = enumeration_of(config), config.search.number
    assert number is not None
    if number >= len(every):
        raise ValueError(f"search.number {number}: the space has {len(every):,} distinct genotypes, from number 0 on")
    return every[number]


Config = TypeVar("Config", bound=ExperimentConfig)


# --- files and overrides --------------------------------------------------------------------------------------------


def resolve(
    data: Mapping[str, Any],
    overrides: Iterable[str] = (),
    model: type[Config] = ExperimentConfig,  # type: ignore[assignment]  # mypy: default of a type variable
    where: str = "configuration",
) -> Config:
    """Merge defaults, the recipe, the preset of the method, a file and overrides, and validate the result as a whole.

    Args:
        data: the settings of the file, in groups.
        overrides: texts `PATH=VALUE` with dotted paths, as `--set` takes them. They override the file.
        model: the class of the configuration.
        where: the name of the place that messages begin with, such as the path of the file.

    Raises:
        UserError: a key, the method or the recipe is unknown, or a value is out of bounds.
    """
    from ..methods import METHODS, network_of
    from .recipes import RECIPES
    from .warm_start import with_start

    merged: dict[str, Any] = dict(data)
    for text in overrides:
        path, value = parse_override(text)
        merged = set_path(merged, path, value)
    method = merged.get("method", "ddarts")
    _check_name("method", "method", method, METHODS, where)
    retrain = merged.get("retrain")
    recipe = retrain.get("recipe", "quick") if isinstance(retrain, Mapping) else "quick"
    _check_name("recipe", "retrain.recipe", recipe, RECIPES, where)
    presets = merge({"retrain": RECIPES[recipe]}, in_one_form(METHODS[method].settings))
    try:
        settings = with_start(merge(presets, in_one_form(merged)))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    config: Config = validate(model, settings, where)
    if config.search.sharing == "normal_reduce" and config.retrain.num_cells is None:
        # Two shared cells say nothing of the depth: unless told otherwise, derive the depth that was searched.
        config = validate(model, set_path(settings, "retrain.num_cells", config.search.num_cells), where)
    if network_of(config.search).layout == "stages":  # it has its own depth: what a file says of cells is for others
        config = validate(
            model, set_path(set_path(settings, "retrain.num_cells", None), "retrain.reductions", None), where
        )
    config.__dict__["given"] = in_one_form(merged)  # the value of the cached property, which is no field
    return config


def _check_name(kind: str, path: str, name: object, table: Iterable[str], where: str) -> None:
    if not isinstance(name, str) or name not in table:
        raise UserError(f"{where}: {path}: {unknown_name(kind, name, table)}")


def load_experiment(
    path: str | Path,
    overrides: Iterable[str] = (),
    model: type[Config] = ExperimentConfig,  # type: ignore[assignment]  # mypy: default of a type variable
) -> Config:
    """Read an experiment file, merge it with defaults and overrides, and validate the result; see `resolve`.

    Raises:
        UserError: the file cannot be read, or a setting is wrong.
    """
    with needed_by(Path(path)):
        return resolve(read_yaml(path), overrides, model, where=str(path))
