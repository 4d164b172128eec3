"""What a search finds: edges, cells and genotypes as frozen, torch-free data, with JSON.

Node numbers follow DARTS: 0 is the output of the cell before the last one, 1 that of the last cell, 2 and up are the
intermediate nodes of the cell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..ground.errors import UserError
from .spaces import OPERATION_NAMES

SCHEMA_VERSION = 1

Layout = Literal["individual", "normal_reduce"]


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

    Raises:
        UserError: no edge or no concatenated node, or a node that is used but receives no input.

    Example:
        >>> Cell((Edge(2, 0, "skip_connect"), Edge(3, 2, "sep_conv_3x3")), concat=(2, 3)).nodes
        (2, 3)
    """

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]

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
class Genotype:
    """A discrete architecture.

    Two layouts: `individual`: one `Cell` per cell of the network, `reductions` are the positions of the reduction
    cells (D-DARTS); `normal_reduce`: two cells (normal, reduction) stacked to any depth with reductions at n//3 and
    2n//3 (DARTS), where `reductions` is empty.

    Example:
        >>> cell = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), concat=(2,))
        >>> Genotype((cell, cell, cell, cell), reductions=(1, 2)).num_cells
        4
    """

    cells: tuple[Cell, ...]
    reductions: tuple[int, ...] = ()
    layout: Layout = "individual"

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

    @property
    def num_cells(self) -> int:
        """Cells of the genotype: 2 for layout `normal_reduce`, whatever the depth it is stacked to."""
        return len(self.cells)

    @property
    def steps(self) -> int:
        """Intermediate nodes of a cell that holds each of these: the number of the largest node, less 1."""
        return max(node for cell in self.cells for node in cell.nodes) - 1

    @property
    def num_edges(self) -> int:
        """Operations in all cells together."""
        return sum(len(cell.edges) for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the inverse."""
        return {
            "schema": SCHEMA_VERSION,
            "layout": self.layout,
            "reductions": list(self.reductions),
            "cells": [
                {"edges": [[e.op, e.source, e.target] for e in cell.edges], "concat": list(cell.concat)}
                for cell in self.cells
            ],
        }

    def to_json(self) -> str:
        """One line per cell, keys in fixed order: equal genotypes give equal text."""
        data = self.to_dict()
        cells = ",\n  ".join(json.dumps(cell) for cell in data.pop("cells"))
        return json.dumps(data)[:-1] + f', "cells": [\n  {cells}\n]}}\n'

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON: stable over processes and versions."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Genotype:
        """Read what `to_dict` wrote.

        Raises:
            UserError: a field is missing, of another type or schema, or the architecture is not valid.
        """
        if not isinstance(data, Mapping) or "schema" not in data:
            raise UserError("not a genotype: the JSON object has no 'schema' field")
        if data["schema"] != SCHEMA_VERSION:
            raise UserError(f"genotype schema {data['schema']!r} is not supported: this version reads {SCHEMA_VERSION}")
        if data.get("layout") not in ("individual", "normal_reduce"):
            raise UserError(f"genotype layout {data.get('layout')!r}: choose individual or normal_reduce")
        try:
            cells = tuple(
                Cell(
                    tuple(Edge(op=as_name(op), source=as_int(s), target=as_int(t)) for op, s, t in c["edges"]),
                    tuple(as_int(node) for node in c["concat"]),
                )
                for c in data["cells"]
            )
            reductions = tuple(as_int(position) for position in data["reductions"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"not a genotype: {_FORM}") from error
        return cls(cells, reductions, data["layout"])

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Read JSON or a published text form: `published_text.read_text` without its notes.

        Raises:
            UserError: the text is neither.
        """
        from .published_text import read_text

        return read_text(text)[0]

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Read a file that holds JSON or a published text form.

        Raises:
            UserError: the file is missing, unreadable or not a genotype.
        """
        from .published_text import load_text

        return load_text(path)[0]


_FORM = (
    '`cells` must be a list of {"edges": [[operation, source, target], ...], "concat": [node, ...]} and `reductions` a '
    "list of positions"
)


def as_int(value: Any) -> int:
    """A node or a position as a file has it; a UserError if it is no integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"not a genotype: {value!r} where a node or position (an integer) is expected")
    return value


def as_name(value: Any) -> str:
    """The name of an operation as a file has it; a UserError if it is no text."""
    if not isinstance(value, str):
        raise UserError(f"not a genotype: {value!r} where the name of an operation is expected")
    return value
