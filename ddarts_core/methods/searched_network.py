"""The part of a search that says what network is trained: which gates it has, and what genotypes they stand for.

Whatever differs between a chain of cells and another kind of network is asked of this part. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .parts import Kept, Part, Shape

if TYPE_CHECKING:
    from torch import Tensor

    from ..datasets.facts import DataInfo
    from ..genotypes.genotype import AnyGenotype
    from ..networks.counting import Tally
    from ..search.discretise import Derivation
    from ..settings.search_settings import DiscretiseConfig
    from ..supernets.searched import SearchedNetwork


class Place(NamedTuple):
    """What one alpha is of.

    Attributes:
        cell: position of the cell or block.
        edge: number of the edge or the decision in it.
        option: what the alpha speaks for, as a word.
    """

    cell: int
    edge: int
    option: str


class Network(Part):
    """The network that a search trains.

    Attributes:
        choice: what each row of gates is of, as a word.
        costs: what the network can say of the expected cost of the genotypes that its gates stand for: `macs`,
            `parameters`.
        reduced_by: the settings that make the network smaller.
    """

    choice: ClassVar[str]
    costs: ClassVar[tuple[str, ...]] = ()
    reduced_by: ClassVar[tuple[str, ...]]

    @property
    def words(self) -> str:
        """How large the network is, in a few words."""
        raise NotImplementedError

    @property
    def layout(self) -> str:
        """The layout of the genotypes that the search finds."""
        raise NotImplementedError

    @property
    def groups(self) -> int:
        """Number of groups of gates; each group has alphas and an optimiser of its own."""
        raise NotImplementedError

    @property
    def one_loss(self) -> bool:
        """Whether a regulariser counts as the mean over all groups, and not as a loss of each group."""
        raise NotImplementedError

    def shape(self, groups: int, kept: Kept | None = None, linked: bool = False) -> Shape:
        """The sizes of the architecture parameters.

        Args:
            groups: number of groups of gates.
            kept: the options of the space that each row still has, [groups][rows][options]; None means all.
            linked: whether the gates weigh links to earlier cells too.
        """
        raise NotImplementedError

    def build(self, info: DataInfo, kept: Kept | None = None) -> SearchedNetwork:
        """The network, whose weights torch's own generator draws.

        Args:
            info: the facts of the images.
            kept: the options that each row still has, as in `shape`.

        Raises:
            UserError: the images do not fit the network.
        """
        raise NotImplementedError

    def count(self, info: DataInfo) -> Tally | None:
        """The sums over the network with all options at full width, by arithmetic; None if there is no such count."""
        return None

    def of_parts(self, values: Tensor) -> Any:
        """Values of the options, [groups, rows, options], for each part of a genotype, as a tensor or nested lists."""
        raise NotImplementedError

    def derive(
        self, scores: Tensor, config: DiscretiseConfig, image_size: int, links: Sequence[int | None] | None = None
    ) -> Derivation:
        """The genotype that scores stand for.

        Args:
            scores: the scores of all options of the space, [groups, rows, options], on the CPU.
            config: the settings of the discretisation.
            image_size: height and width of the images that the search trains on.
            links: for each cell, the earlier cell that it reads; None without links.

        Raises:
            UserError: the scores make no network.
        """
        raise NotImplementedError

    def heaviest_kept(self, number: int) -> Kept:
        """The heaviest options of each row, so many of each; the most that a plan may keep."""
        raise NotImplementedError

    def heaviest(self, config: DiscretiseConfig, image_size: int) -> AnyGenotype:
        """The heaviest genotype that the search may find; the arguments are those of `derive`."""
        raise NotImplementedError

    @property
    def places(self) -> tuple[Place, ...]:
        """The place of every recorded alpha, in order; empty if they are [groups][edges][operations] of cells."""
        return ()

    def trained_size(self, genotype: AnyGenotype) -> int | None:
        """Height and width of the images that the search chose for a genotype; None if it does not choose them."""
        return None
