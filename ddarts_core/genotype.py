"""What a search finds: edges, cells and genotypes as frozen, torch-free data, with JSON and the published text forms.

Node numbers follow DARTS: 0 is the output of the cell before the last one, 1 that of the last cell, 2 and up are the
intermediate nodes of the cell.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import UserError
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
                    tuple(Edge(op=_name(op), source=_int(s), target=_int(t)) for op, s, t in c["edges"]),
                    tuple(_int(node) for node in c["concat"]),
                )
                for c in data["cells"]
            )
            reductions = tuple(_int(position) for position in data["reductions"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"not a genotype: {_FORM}") from error
        return cls(cells, reductions, data["layout"])

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Read JSON or one of the published text forms; nothing is evaluated.

        The text forms are `Genotype_nested(genes, concat, reductions)`, `Genotype_opt(genes, seq, concat, reductions)`
        and DARTS' and FairDARTS' `Genotype(normal, normal_concat, reduce, reduce_concat)`.

        Raises:
            UserError: the text is none of them.
        """
        stripped = text.strip()
        if stripped.startswith("{"):
            try:
                data = json.loads(stripped)
            except (ValueError, RecursionError) as error:
                raise UserError(f"not a genotype: bad JSON ({error})") from error
            return cls.from_dict(data)
        name, fields = _parse_call(stripped)
        try:
            return _TEXT_FORMS[name](fields)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"not a genotype: unexpected content of {name}; {_GENES}") from error

    @classmethod
    def load(cls, path: str | Path) -> Genotype:
        """Read a file that holds JSON or a published text form.

        Raises:
            UserError: the file is missing, unreadable or not a genotype.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot read genotype {str(path)!r}: {reason}; give a file or zoo:NAME") from error
        try:
            return cls.from_text(text)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


_FORM = (
    '`cells` must be a list of {"edges": [[operation, source, target], ...], "concat": [node, ...]} and `reductions` a '
    "list of positions"
)
_GENES = (
    "its genes are lists of (operation, target, source), or of (operation, source), and its other fields of integers"
)


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"not a genotype: {value!r} where a node or position (an integer) is expected")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"not a genotype: {value!r} where the name of an operation is expected")
    return value


# --- published text forms -------------------------------------------------------------------------------------------

_FIELDS = {
    "Genotype": ("normal", "normal_concat", "reduce", "reduce_concat"),
    "Genotype_nested": ("genes", "concat", "reductions"),
    "Genotype_opt": ("genes", "seq", "concat", "reductions"),
}


def _parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the fields of `Name(field=literal, ...)`; `range(a, b)` counts as a literal."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError("not a genotype: neither JSON nor a published text form") from error
    if len(body) != 1 or not isinstance(body[0], (ast.Expr, ast.Assign)):
        raise UserError(f"not a genotype: expected one call of {' or '.join(_FIELDS)}")
    call = body[0].value
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in _FIELDS:
        raise UserError(f"not a genotype: expected a call of {' or '.join(_FIELDS)}")
    names = _FIELDS[call.func.id]
    fields: dict[str, Any] = {}
    for name, node in (*zip(names, call.args, strict=False), *((k.arg, k.value) for k in call.keywords)):
        if name not in names:
            raise UserError(f"unknown field {name!r} of {call.func.id}: it has {', '.join(names)}")
        fields[name] = _literal(node)
    missing = [name for name in names if name not in fields]
    if missing:
        raise UserError(f"{call.func.id} lacks the field {missing[0]!r}: it has {', '.join(names)}")
    return call.func.id, fields


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("range", "list", "tuple"):
        values = [_literal(argument) for argument in node.args]
        if node.func.id != "range":
            if len(values) > 1 or (values and not isinstance(values[0], (list, tuple))):
                raise UserError(f"not a genotype: {node.func.id}(...) takes one list")
            return list(values[0]) if values else []
        small = all(isinstance(v, int) and not isinstance(v, bool) and abs(v) <= 1000 for v in values)
        if not 1 <= len(values) <= 3 or not small or values[2:] == [0]:
            raise UserError("not a genotype: range(...) takes one to three small integers, the third not 0")
        return list(range(*values))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError("not a genotype: its fields must be plain lists, numbers and names") from error


def _triples(genes: Iterable[Sequence[Any]]) -> tuple[Edge, ...]:
    """D-DARTS' and FairDARTS' genes: (operation, target, source)."""
    return tuple(Edge(op=_name(op), source=_int(source), target=_int(target)) for op, target, source in genes)


def _pairs(genes: Sequence[Sequence[Any]]) -> tuple[Edge, ...]:
    """DARTS' genes: (operation, source), two per node."""
    return tuple(
        Edge(op=_name(op), source=_int(source), target=2 + index // 2) for index, (op, source) in enumerate(genes)
    )


def _published_cell(genes: Sequence[Sequence[Any]], concat: Sequence[int]) -> Cell:
    """One cell of a published form: nodes of `concat` without an input vanish, as in the published networks."""
    if not genes:
        raise UserError("a published cell without genes computes nothing")
    edges = _pairs(genes) if len(genes[0]) == 2 else _triples(genes)
    fed = {edge.target for edge in edges}
    return Cell(edges, tuple(node for node in concat if node in fed))


def _individual(cells: Sequence[Sequence[Sequence[Any]]], fields: Mapping[str, Any]) -> Genotype:
    reductions = tuple(_int(position) for position in fields["reductions"])
    return Genotype(tuple(_published_cell(genes, fields["concat"]) for genes in cells), reductions)


def _from_nested(fields: Mapping[str, Any]) -> Genotype:
    return _individual(fields["genes"], fields)


def _from_opt(fields: Mapping[str, Any]) -> Genotype:
    return _individual([fields["genes"][_int(position)] for position in fields["seq"]], fields)


def _from_darts(fields: Mapping[str, Any]) -> Genotype:
    normal = _published_cell(fields["normal"], fields["normal_concat"])
    reduce = _published_cell(fields["reduce"], fields["reduce_concat"])
    return Genotype((normal, reduce), layout="normal_reduce")


_TEXT_FORMS = {"Genotype": _from_darts, "Genotype_nested": _from_nested, "Genotype_opt": _from_opt}


def to_published_text(genotype: Genotype) -> str:
    """The published text form that `Genotype.from_text` reads back: `Genotype_nested(...)` or `Genotype(...)`.

    Raises:
        UserError: cells concatenate different nodes, which `Genotype_nested` (one `concat` for all) cannot say.
    """
    genes = [[(e.op, e.target, e.source) for e in cell.edges] for cell in genotype.cells]
    concats = [list(cell.concat) for cell in genotype.cells]
    if genotype.layout == "normal_reduce":
        return f"Genotype(normal={genes[0]}, normal_concat={concats[0]}, reduce={genes[1]}, reduce_concat={concats[1]})"
    union = sorted({node for concat in concats for node in concat})
    for cell, concat in zip(genotype.cells, concats, strict=True):
        if concat != [node for node in union if node in cell.nodes]:
            raise UserError("Genotype_nested has one concat for all cells: this genotype's cells differ in theirs")
    return f"Genotype_nested(genes={genes}, reductions={list(genotype.reductions)}, concat={union})"
