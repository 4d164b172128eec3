"""What a search finds, as frozen, torch-free data that JSON can hold: the base of all genotypes, and those of cells.

Genotypes of another kind, whose blocks are grouped in stages, are in `blocks`. Node numbers follow DARTS, as seen from
a cell: node 0 is the output of the cell two before it, node 1 is the output of the cell before it, and 2 and up are
the cell's own intermediate nodes.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from ..ground.errors import UserError
from .links import num_sources
from .spaces import OPERATION_NAMES

SCHEMA_VERSION = 1

Layout = Literal["individual", "normal_reduce"]

Kind = TypeVar("Kind", bound="AnyGenotype")

#: Of an operation: the position of its cell (or block), the node that it leads to, the one that it reads, and its name.
Operation = tuple[int, int, int, str]


class AnyGenotype(ABC):
    """A discrete architecture of any kind, with what files, reports and trainings ask of it.

    It is made of cells or of blocks, whose positions count from 0.

    Attributes:
        layouts: the layouts that genotypes of this kind may have.
        part: what genotypes of this kind are made of, as a word.
        rows: the field of `to_dict` each of whose items has a line of its own in a file.
    """

    layouts: ClassVar[tuple[str, ...]]
    part: ClassVar[str]
    rows: ClassVar[str]

    @property
    @abstractmethod
    def layout(self) -> str:
        """The genotype's layout; in a file it says which kind of genotype the file holds."""

    @property
    @abstractmethod
    def reductions(self) -> tuple[int, ...]:
        """Positions of the cells or blocks that halve the image."""

    @property
    @abstractmethod
    def num_cells(self) -> int:
        """Number of cells, or of blocks, that the genotype is made of."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What the genotype is made of, in words."""

    @abstractmethod
    def operations(self) -> Iterator[Operation]:
        """Every operation, cell by cell."""

    @property
    def num_edges(self) -> int:
        """Number of operations of all cells together."""
        return sum(1 for _ in self.operations())

    @property
    def dead_cells(self) -> tuple[int, ...]:
        """Positions of what nothing reads, if a network is built from the genotype as it is."""
        return ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the inverse."""

    @classmethod
    @abstractmethod
    def of_fields(cls: type[Kind], data: Mapping[str, Any]) -> Kind:
        """Read what `to_dict` wrote of a genotype of this kind.

        Raises:
            UserError: a field is missing or of another type, or the architecture is not valid.
        """

    def to_json(self) -> str:
        """One line per cell or stage, keys in fixed order: equal genotypes give equal text."""
        data = self.to_dict()
        rows = ",\n  ".join(json.dumps(row) for row in data.pop(self.rows))
        return json.dumps(data)[:-1] + f', "{self.rows}": [\n  {rows}\n]}}\n'

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON: stable over processes and versions."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def from_dict(cls: type[Kind], data: Mapping[str, Any]) -> Kind:
        """Read what `to_dict` wrote.

        Raises:
            UserError: a field is missing, of another type or schema, the architecture is not valid, or its kind is not
                that of the class that is asked.
        """
        from .blocks import StagedGenotype

        if not isinstance(data, Mapping) or "schema" not in data:
            raise UserError("not a genotype: the JSON object has no 'schema' field")
        if data["schema"] != SCHEMA_VERSION:
            raise UserError(f"genotype schema {data['schema']!r} is not supported: this version reads {SCHEMA_VERSION}")
        kinds: tuple[type[AnyGenotype], ...] = (Genotype, StagedGenotype)
        kind = next((kind for kind in kinds if data.get("layout") in kind.layouts), None)
        if kind is None:
            raise UserError(f"genotype layout {data.get('layout')!r}: choose individual, normal_reduce or stages")
        return cls.narrowed(kind.of_fields(data))

    @classmethod
    def from_text(cls: type[Kind], text: str) -> Kind:
        """Read JSON or a published text form: `published_text.read_text` without its notes.

        Raises:
            UserError: the text is neither, or the kind of the genotype is not that of the class that is asked.
        """
        from .published_text import read_text

        return cls.narrowed(read_text(text)[0])

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """Read a file that holds JSON or a published text form.

        Raises:
            UserError: the file is missing, unreadable, not a genotype, or of another kind than the class that is asked.
        """
        from .published_text import load_text

        return cls.narrowed(load_text(path)[0])

    @classmethod
    def narrowed(cls: type[Kind], genotype: AnyGenotype, what: str = "this") -> Kind:
        """Return the genotype itself, after a check that it is of this kind.

        Args:
            genotype: a genotype of any kind.
            what: what asks for it, for the message.

        Raises:
            UserError: the genotype is of another kind.
        """
        if isinstance(genotype, cls):
            return genotype
        wanted = " or ".join(cls.layouts)
        raise UserError(f"{what} needs a genotype of layout {wanted}, this one is of layout {genotype.layout}")


@dataclass(frozen=True, order=True)
class Edge:
    """One operation from node `source` to node `target`.

    Raises:
        UserError: the operation is unknown, or the edge does not run from an earlier to a later node.
    """

    target: int
    source: int
    op: str

    def __post_init__(self) -> None:
        if self.op not in OPERATION_NAMES:
            raise UserError(
                f"unknown operation {self.op!r} in a genotype: choose one of {', '.join(sorted(OPERATION_NAMES))}"
            )
        if not 0 <= self.source < self.target or self.target < 2:
            raise UserError(
                f"edge {self.op} {self.source}->{self.target}: the source must be an earlier node "
                "(0 <= source < target) and the target an intermediate node (2 or more)"
            )


@dataclass(frozen=True)
class Cell:
    """Edges of one cell, sorted by target, source and operation, and the nodes whose outputs are concatenated.

    An operation named twice on one edge is two operations (NASNet-A pools an input twice and sums).

    Attributes:
        edges: the operations between nodes.
        concat: the nodes whose outputs are concatenated.
        link: position of an earlier cell that is joined to input 0 (`links`); None means no such cell.

    Raises:
        UserError: there is no edge or no concatenated node, or a node is used but receives no input.

    Example:
        >>> Cell((Edge(2, 0, "skip_connect"), Edge(3, 2, "sep_conv_3x3")), concat=(2, 3)).nodes
        (2, 3)
    """

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]
    link: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(sorted(self.edges)))
        object.__setattr__(self, "concat", tuple(sorted(self.concat)))
        if not self.edges:
            raise UserError("a cell without edges computes nothing: lower the threshold or set on_empty_node: best")
        if not self.concat or len(set(self.concat)) != len(self.concat):
            raise UserError("a cell must concatenate at least one node, and each node once")
        fed = {edge.target for edge in self.edges} | {0, 1}
        for node in (*self.concat, *(edge.source for edge in self.edges)):
            if node not in fed:
                raise UserError(f"node {node} of a cell is used but has no input edge")
        if min(self.concat) < 2:
            raise UserError(f"concat {list(self.concat)}: only intermediate nodes (2 or more) are concatenated")

    @property
    def nodes(self) -> tuple[int, ...]:
        """Intermediate nodes that receive an input, ascending."""
        return tuple(sorted({edge.target for edge in self.edges}))

    def reads(self, node: int) -> bool:
        """Whether the cell's output depends on input `node` (0 or 1)."""
        needed = set(self.concat)
        for edge in reversed(self.edges):
            if edge.target in needed:
                needed.add(edge.source)
        return node in needed


@dataclass(frozen=True)
class Genotype(AnyGenotype):
    """A discrete architecture of cells.

    There are two layouts. With `individual` there is one `Cell` per cell of the network, and `reductions` are the
    positions of the reduction cells (D-DARTS). With `normal_reduce` there are two cells (normal, reduction), which are
    stacked to any depth with reductions at n//3 and 2n//3 (DARTS); `reductions` is empty.

    Example:
        >>> cell = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), concat=(2,))
        >>> Genotype((cell, cell, cell, cell), reductions=(1, 2)).num_cells
        4
    """

    cells: tuple[Cell, ...]
    reductions: tuple[int, ...] = ()
    layout: Layout = "individual"

    layouts: ClassVar[tuple[str, ...]] = ("individual", "normal_reduce")
    part: ClassVar[str] = "cell"
    rows: ClassVar[str] = "cells"

    def __post_init__(self) -> None:
        if not self.cells:
            raise UserError("a genotype needs at least one cell")
        if self.layout == "normal_reduce" and (len(self.cells) != 2 or self.reductions):
            raise UserError("a normal_reduce genotype has exactly two cells, normal and reduction, and no positions")
        if list(self.reductions) != sorted(set(self.reductions)):
            raise UserError(f"reductions {list(self.reductions)} must ascend without repeats")
        if any(not 0 <= position < len(self.cells) for position in self.reductions):
            raise UserError(
                f"reductions {list(self.reductions)} must be positions of the {len(self.cells)} cells "
                f"(0 to {len(self.cells) - 1})"
            )
        for position, cell in enumerate(self.cells):
            possible = 0 if self.layout == "normal_reduce" else num_sources(position)
            if cell.link is not None and not 0 <= cell.link < possible:
                raise UserError(
                    f"link {cell.link} of cell {position}: a cell is linked to one of an individual genotype that lies "
                    "3 or more before it"
                )

    @property
    def has_links(self) -> bool:
        """Whether a cell reads another one beside the two before it."""
        return any(cell.link is not None for cell in self.cells)

    @property
    def num_cells(self) -> int:
        """Number of cells of the genotype: 2 for layout `normal_reduce`, whatever the depth of the stack."""
        return len(self.cells)

    @property
    def steps(self) -> int:
        """Number of intermediate nodes that a cell needs to hold each of these cells: the largest node, less 1."""
        return max(node for cell in self.cells for node in cell.nodes) - 1

    @property
    def words(self) -> str:
        """What the genotype is made of, in words."""
        return "normal and reduction cell" if self.layout == "normal_reduce" else f"{self.num_cells} cells"

    def operations(self) -> Iterator[Operation]:
        """Every operation, cell by cell."""
        for position, cell in enumerate(self.cells):
            yield from ((position, edge.target, edge.source, edge.op) for edge in cell.edges)

    @property
    def dead_cells(self) -> tuple[int, ...]:
        """Positions of cells that nothing reads, if a network is built from the genotype as it is."""
        from .dead_cells import dead_cells

        return dead_cells(self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the inverse."""
        return {
            "schema": SCHEMA_VERSION,
            "layout": self.layout,
            "reductions": list(self.reductions),
            "cells": [
                {"edges": [[e.op, e.source, e.target] for e in cell.edges], "concat": list(cell.concat)}
                | ({} if cell.link is None else {"link": cell.link})
                for cell in self.cells
            ],
        }

    @classmethod
    def of_fields(cls, data: Mapping[str, Any]) -> Genotype:
        """Read what `to_dict` wrote; see `AnyGenotype`."""
        try:
            cells = tuple(
                Cell(
                    tuple(Edge(op=as_name(op), source=as_int(s), target=as_int(t)) for op, s, t in c["edges"]),
                    tuple(as_int(node) for node in c["concat"]),
                    None if c.get("link") is None else as_int(c["link"]),
                )
                for c in data["cells"]
            )
            reductions = tuple(as_int(position) for position in data["reductions"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"not a genotype: {_FORM}") from error
        return cls(cells, reductions, data["layout"])


_FORM = (
    '`cells` must be a list of {"edges": [[operation, source, target], ...], "concat": [node, ...]}, each with a '
    '"link" (position) or without, and `reductions` a list of positions'
)


def as_int(value: Any) -> int:
    """A node or a position as a file has it; raises UserError if it is not an integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"not a genotype: {value!r} where a node or position (an integer) is expected")
    return value


def as_name(value: Any) -> str:
    """The name of an operation as a file has it; raises UserError if it is not a text."""
    if not isinstance(value, str):
        raise UserError(f"not a genotype: {value!r} where the name of an operation is expected")
    return value
