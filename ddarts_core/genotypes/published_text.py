"""The published text forms of genotypes: they are read as the published networks read them, and written.

Torch-free; nothing is evaluated.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..ground.errors import UserError
from ..ground.plugins import needed_by
from .genotype import AnyGenotype, Cell, Edge, Genotype, as_int, as_name

Notes: TypeAlias = tuple[str, ...]
"""Sentences for the user: where a published network does not do what the text of its genotype says."""


def load_text(path: str | Path) -> tuple[AnyGenotype, Notes]:
    """Read a file with `read_text`.

    Raises:
        UserError: the file is missing, unreadable or not a genotype.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read genotype {str(path)!r}: {reason}; give a file or zoo:NAME") from error
    with needed_by(Path(path)):
        try:
            return read_text(text)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def read_text(text: str) -> tuple[AnyGenotype, Notes]:
    """Read JSON or one of the published text forms; nothing is evaluated.

    The text forms are `Genotype_nested(genes, concat, reductions)`, `Genotype_opt(genes, seq, concat, reductions)` and
    DARTS' and FairDARTS' `Genotype(normal, normal_concat, reduce, reduce_concat)`. They are read as the published
    networks read them (`Cell` and `DCOCell` in the model.py of FairDARTS and of D-DARTS), and the notes say where that
    is not what the text says:

    - Genes of two fields, (operation, source): each node has two genes, and the nodes of `concat` are concatenated.
    - Genes of three fields, (operation, target, source): `concat` is ignored, and every node that has a gene is
      concatenated. Nodes are computed in the order in which they first appear. An operation that reads a node which is
      not computed yet is left out. The published network holds the weights of such an operation and never uses them, so
      that its own count of parameters is larger.

    Raises:
        UserError: the text is none of them, or the published network could not run it.
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            data = json.loads(stripped)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not a genotype: bad JSON ({error})") from error
        return AnyGenotype.from_dict(data), ()
    name, fields = _parse_call(stripped)
    notes: list[str] = []
    try:
        return _TEXT_FORMS[name](fields, notes), tuple(dict.fromkeys(notes))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"not a genotype: unexpected content of {name}; {_GENES}") from error


_GENES = (
    "its genes are lists of (operation, target, source), or of (operation, source), and its other fields of integers"
)

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
    return tuple(Edge(op=as_name(op), source=as_int(source), target=as_int(target)) for op, target, source in genes)


def _pairs(genes: Sequence[Sequence[Any]]) -> tuple[Edge, ...]:
    """DARTS' genes: (operation, source), two per node."""
    if len(genes) % 2:
        raise UserError(f"{len(genes)} genes of two fields: the published network reads two per node")
    return tuple(
        Edge(op=as_name(op), source=as_int(source), target=2 + index // 2) for index, (op, source) in enumerate(genes)
    )


def _published_cell(where: str, genes: Sequence[Sequence[Any]], concat: Sequence[Any], notes: list[str]) -> Cell:
    """One cell of a published form, as the published network reads it; see `read_text`."""
    if not genes:
        raise UserError("a published cell without genes computes nothing")
    stated = tuple(as_int(node) for node in concat)
    if len(genes[0]) == 2:
        return Cell(_pairs(genes), stated)
    edges = _triples(genes)
    computed = [0, 1]
    kept: list[Edge] = []
    for target in dict.fromkeys(edge.target for edge in edges):
        into = [edge for edge in edges if edge.target == target]
        read = [edge for edge in into if edge.source in computed]
        if not read:
            raise UserError(
                f"node {target} of {where} reads only nodes that have no input: the published network cannot run it"
            )
        notes += [
            f"{edge.op} {edge.source}->{edge.target} of {where} is left out: it reads a node that is not computed "
            "before it, and the published network ignores it"
            for edge in into
            if edge not in read
        ]
        computed.append(target)
        kept += read
    cell = Cell(tuple(kept), tuple(computed[2:]))
    if not set(cell.concat) <= set(stated):
        notes.append(
            f"concat {sorted(stated)} of the text is ignored, as the published network ignores it: every node that "
            "has an input is concatenated"
        )
    return cell


def _individual(cells: Sequence[Sequence[Sequence[Any]]], fields: Mapping[str, Any], notes: list[str]) -> Genotype:
    reductions = tuple(as_int(position) for position in fields["reductions"])
    return Genotype(
        tuple(_published_cell(f"cell {k}", genes, fields["concat"], notes) for k, genes in enumerate(cells)), reductions
    )


def _from_nested(fields: Mapping[str, Any], notes: list[str]) -> Genotype:
    return _individual(fields["genes"], fields, notes)


def _from_opt(fields: Mapping[str, Any], notes: list[str]) -> Genotype:
    return _individual([fields["genes"][as_int(position)] for position in fields["seq"]], fields, notes)


def _from_darts(fields: Mapping[str, Any], notes: list[str]) -> Genotype:
    normal = _published_cell("the normal cell", fields["normal"], fields["normal_concat"], notes)
    reduce = _published_cell("the reduction cell", fields["reduce"], fields["reduce_concat"], notes)
    return Genotype((normal, reduce), layout="normal_reduce")


_TEXT_FORMS = {"Genotype": _from_darts, "Genotype_nested": _from_nested, "Genotype_opt": _from_opt}


def to_published_text(genotype: AnyGenotype) -> str:
    """Write the published text form that `read_text` and the published network read back as this genotype.

    Genes have three fields if every node is concatenated, as the published network does with such genes; otherwise they
    have two fields.

    Raises:
        UserError: no text form can say which nodes this genotype concatenates, or which links it has, or the genotype
            is not of cells.
    """
    whole = Genotype.narrowed(genotype, "a published text form")
    if whole.has_links:
        raise UserError("no published text form can say this genotype: its cells are linked to earlier ones")
    if all(cell.concat == cell.nodes for cell in whole.cells):
        genes = [[(e.op, e.target, e.source) for e in cell.edges] for cell in whole.cells]
        if whole.layout == "individual":
            union = sorted({node for cell in whole.cells for node in cell.concat})
            return f"Genotype_nested(genes={genes}, reductions={list(whole.reductions)}, concat={union})"
        return _darts_text(whole, genes)
    paired = all(
        [edge.target for edge in cell.edges] == [2 + k // 2 for k in range(2 * len(cell.nodes))] for cell in whole.cells
    )
    if whole.layout == "individual" or not paired:
        raise UserError(
            "no published text form can say this genotype: of its nodes it does not concatenate all, and published "
            "networks concatenate every node, but those of normal and reduction cells with two operations per node"
        )
    return _darts_text(whole, [[(e.op, e.source) for e in cell.edges] for cell in whole.cells])


def _darts_text(genotype: Genotype, genes: Sequence[object]) -> str:
    normal, reduction = (list(cell.concat) for cell in genotype.cells)
    return f"Genotype(normal={genes[0]}, normal_concat={normal}, reduce={genes[1]}, reduce_concat={reduction})"
