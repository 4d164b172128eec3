"""Genotype files are data: what is not a plain genotype is refused, and nothing in it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError

GENES = "[('sep_conv_3x3', 0), ('skip_connect', 1)]"
PLAIN = f"Genotype(normal={GENES}, normal_concat=range(2, 3), reduce={GENES}, reduce_concat=[2])"
BROKEN = [PLAIN + "; x = 1", PLAIN.replace("range(2, 3)", "range(10**9)")]


@pytest.mark.parametrize(
    "code",
    [
        "__import__('pathlib').Path({mark!r}).write_text('x')",
        "open({mark!r}, 'w')",
        "[x for x in [open({mark!r}, 'w')]]",
        "(lambda: open({mark!r}, 'w'))()",
        "range(*[open({mark!r}, 'w')])",
    ],
)
@pytest.mark.parametrize("field", [GENES, "range(2, 3)"])
def test_code_in_a_genotype_is_not_run(code: str, field: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = tmp_path / "genotype.txt"
    file.write_text(PLAIN.replace(field, code.format(mark=str(mark)), 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"genotype\.txt: not a genotype"):
        Genotype.load(file)
    assert not mark.exists()


def test_a_plain_text_form_is_read() -> None:
    genotype = Genotype.from_text(PLAIN)
    assert genotype.layout == "normal_reduce"
    assert [(edge.op, edge.source, edge.target) for edge in genotype.cells[0].edges] == [
        ("sep_conv_3x3", 0, 2),
        ("skip_connect", 1, 2),
    ]
    assert Genotype.from_text(f"best = {PLAIN}") == genotype


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sep_conv_3x3",
        "[1, 2]",
        "{",
        "Network()",
        "Genotype()",
        PLAIN + "; x = 1",
        PLAIN.replace("range(2, 3)", "range(10**9)"),
    ],
)
def test_anything_else_is_a_mistake(text: str) -> None:
    with pytest.raises(UserError):
        Genotype.from_text(text)
