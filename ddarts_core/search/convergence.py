"""What a finished search decided, in plain words. Torch-free."""

from __future__ import annotations

from typing import Any

from ..genotypes.spaces import num_edges
from ..settings.search_settings import DiscretiseConfig
from .discretise import OVER, Derivation, flat, named, plain, saturation


def convergence_sentence(
    gates: Any, derivation: Derivation, config: DiscretiseConfig, independent: bool = True, choice: str = "edge"
) -> str:
    """In plain words: how much of the search is decided, what the derivation had to mend, and what would help.

    Independent (sigmoid) gates are decided above 0.9 and below 0.1. Most softmax weights are small whatever happens; so
    with them an edge is decided when one operation holds more than 0.9 of it. If less than one half is decided, the
    search has not converged.

    Args:
        gates: the gates of the cells that were derived, [cells, edges, operations].
        derivation: the derivation from these gates.
        config: the settings of the derivation.
        independent: whether the gates are independent (sigmoid).
        choice: what each row of gates is of, as a word.
    """
    rows = plain(gates)
    if not independent:
        edges = [edge for cell in rows for edge in cell]
        what, decided, total = f"{choice}s", sum(max(edge) > OVER for edge in edges), len(edges)
        remedies = ["search longer"]
    else:
        what, decided, total = "operations", sum(saturation(rows)), len(flat(rows))
        remedies = ["search longer", "or raise search.w_zero_one"]
    converged = 2 * decided >= total
    parts = [f"{100 * decided // total} % of {what} decided" + ("" if converged else ", not converged")]
    bare = derivation.fallback or derivation.dropped
    if bare:
        steps = next(s for s in range(1, len(rows[0]) + 1) if num_edges(s) == len(rows[0]))
        fate = "given their best operation" if derivation.fallback else "left out"
        parts.append(
            f"threshold {config.threshold:g} left {len(bare)} of {len(rows) * steps} nodes without input ({fate})"
        )
        remedies.insert(0, "lower the threshold")
    sentence = "; ".join(parts)
    if bare or not converged:
        sentence += ": " + (", " if len(remedies) > 2 else " ").join(remedies)
    if derivation.dead_cells:
        sentence += (
            f". Nothing reads the output of {named('cell', derivation.dead_cells)}: "
            "set discretise.on_dead_cell: connect, or lower the threshold"
        )
    return sentence + "."
