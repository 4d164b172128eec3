"""Methods, each a room of its own: a preset of settings and the parts that it brings (docs/extending.md). Torch-free.

The table `METHODS` names the methods. The other tables name the parts, which a file may combine freely. A plug-in adds
methods and parts to these tables through `registry.Registry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..ground.errors import UserError
from ..ground.table import Table
from . import (
    ablation,
    beta_darts,
    cdarts,
    common,
    dartopti,
    darts,
    darts_minus,
    darts_pt,
    ddarts,
    dots,
    drnas,
    fairdarts,
    fbnetv2,
    gdas,
    oles,
    pcdarts,
    pdarts,
    random_search,
    rules,
    sdarts_adv,
    sdarts_rs,
    shapley_nas,
    udarts,
)
from .method import Method
from .parts import Ablation, Edge, Freezing, Gates, Part, Plan, Regulariser, Rule
from .searched_network import Network

if TYPE_CHECKING:
    from ..settings.search_settings import AblationConfig, DiscretiseConfig, SearchConfig

METHODS: Table[Method] = Table("method")
NETWORKS: Table[type[Network]] = Table("network")
GATES: Table[type[Gates]] = Table("kind of gates")
EDGES: Table[type[Edge]] = Table("edge")
#: Terms of the loss: classes of `Regulariser` and of `Ablation`, which are asked different things.
REGULARISERS: Table[Any] = Table("regulariser")
PLANS: Table[type[Plan]] = Table("plan of stages")
FREEZINGS: Table[type[Freezing]] = Table("rule of freezing")
RULES: Table[type[Rule]] = Table("rule of discretisation")


#: The table of each kind of part, by the kind's base class.
TABLES: Mapping[type[Part], Table[Any]] = MappingProxyType(
    {
        Network: NETWORKS,
        Gates: GATES,
        Edge: EDGES,
        Regulariser: REGULARISERS,
        Ablation: REGULARISERS,
        Plan: PLANS,
        Freezing: FREEZINGS,
        Rule: RULES,
    }
)


def add_part(part: type[Part]) -> Table[Any]:
    """Put a part into the table of its kind, and return this table.

    Raises:
        UserError: the part's name is taken, or it is the name of an ablation loss and the part is none, or the part is
            an ablation loss and the name is not that of one.
    """
    table = next(table for base, table in TABLES.items() if issubclass(part, base))
    if table is REGULARISERS and part.name.startswith(Ablation.PREFIX) != issubclass(part, Ablation):
        raise UserError(
            f"the name of an ablation loss begins with {Ablation.PREFIX!r}, and that of another term does not: "
            f"rename {part.name!r}"
        )
    table.add(part.name, part)
    return table


def add(name: str, method: Method) -> None:
    """Put a method, and the parts that it brings, into the tables.

    Raises:
        UserError: a name is taken.
    """
    METHODS.add(name, method)
    for part in method.parts:
        add_part(part)


def parts_in_use(search: SearchConfig) -> Iterator[type[Part]]:
    """The parts that a search is made of."""
    yield NETWORKS[search.network]
    yield GATES[search.gates]
    yield EDGES[search.edge]
    yield PLANS[search.stages]
    yield FREEZINGS[search.freezing]
    names = dict.fromkeys(search.regularisers)
    if search.w_zero_one:
        names[common.ZeroOne.name] = None
    if search.cost is not None:
        names[common.ExpectedCost.name] = None
    yield from (REGULARISERS[name] for name in names)


def network_of(search: SearchConfig) -> Network:
    """The part that says what network a search trains."""
    return NETWORKS[search.network](search)


def ablation_losses() -> dict[str, type[Ablation]]:
    """The terms that are ablation losses, by the names that `ablation.loss` uses for them."""
    return {
        name.removeprefix(Ablation.PREFIX): part for name, part in REGULARISERS.items() if issubclass(part, Ablation)
    }


def ablation_loss(settings: AblationConfig) -> Ablation | None:
    """The ablation loss of a search; None without one."""
    return None if settings.loss == "none" else ablation_losses()[settings.loss](settings)


def all_parts() -> Iterator[tuple[str, type[Part]]]:
    """Every part, with the setting that chooses it."""
    kinds: dict[str, Mapping[str, type[Part]]] = {
        "search.network": NETWORKS,
        "search.gates": GATES,
        "search.edge": EDGES,
        "search.stages": PLANS,
        "search.freezing": FREEZINGS,
    }
    for path, table in kinds.items():
        yield from ((path, part) for part in table.values())
    yield from ((f"search.regularisers.{part.name}", part) for part in REGULARISERS.values())
    yield from (("discretise.rule", part) for part in RULES.values())


def paths_of_parts() -> list[str]:
    """Dotted paths of all settings that parts have."""
    options = dict.fromkeys(f"{part.where}.{name}" for _, part in all_parts() for name in part.Options.model_fields)
    weights = [f"search.regularisers.{name}.weight" for name in REGULARISERS]
    return [*options, *weights]


def check_options(settings: SearchConfig | DiscretiseConfig | AblationConfig, parts: Iterable[type[Part]]) -> None:
    """Refuse an option that no part in use has, and a value that its part refuses.

    Raises:
        UserError: the message says which option is wrong, and which options there are.
    """
    known: set[str] = set()
    for part in parts:
        known.update(part.Options.model_fields)
        part.own_options(settings.options)
    unknown = sorted(set(settings.options) - known)
    if unknown:
        choices = f"choose one of {', '.join(sorted(known))}" if known else "the parts in use have none"
        raise UserError(f"unknown option {unknown[0]!r}: {choices}")


for _part in (
    common.Cells,
    common.Sigmoid,
    common.Softmax,
    common.Mixed,
    common.ZeroOne,
    common.ZeroOneL1,
    common.ExpectedCost,
    common.Standard,
    common.Unfrozen,
    ablation.Monitor,
    ablation.Centered,
    ablation.Relative,
    ablation.Paper,
    ablation.Rescale,
    ablation.Credit,
    rules.Sparse,
    rules.TwoOperations,
    rules.BestEdges,
    rules.Complete,
):
    add_part(_part)

for _name, _method in {
    "ddarts": ddarts.CLEAN,
    "ddarts-published": ddarts.PUBLISHED,
    "ddarts-lf": ddarts.FAIR_LOSS,
    "dartopti": dartopti.METHOD,
    "fairdarts": fairdarts.METHOD,
    "darts": darts.FIRST,
    "darts-second-order": darts.SECOND,
    "darts-minus": darts_minus.METHOD,
    "beta-darts": beta_darts.METHOD,
    "pcdarts": pcdarts.METHOD,
    "pdarts": pdarts.METHOD,
    "dots": dots.METHOD,
    "gdas": gdas.METHOD,
    "drnas": drnas.METHOD,
    "sdarts-rs": sdarts_rs.METHOD,
    "sdarts-adv": sdarts_adv.METHOD,
    "oles": oles.METHOD,
    "darts-pt": darts_pt.METHOD,
    "shapley-nas": shapley_nas.METHOD,
    "udarts": udarts.METHOD,
    "cdarts": cdarts.METHOD,
    "fbnetv2": fbnetv2.METHOD,
    "random": random_search.METHOD,
}.items():
    add(_name, _method)
