"""Links: the cells that one may read beside the two before it (U-DARTS' global connection). Torch-free.

Cell k reads, if k is 3 or more, one of the cells 0 to k - 3: its output is averaged over neighbouring channels and
pixels until it has a quarter of the channels of input 0 and its size, and is joined to input 0.
"""

from __future__ import annotations

from ..ground.errors import UserError

#: The first cell that has cells to choose from.
FIRST = 3

#: Channels of input 0 for each that is joined to it.
SHARE = 4


def num_sources(position: int) -> int:
    """How many cells a cell may choose from; they are the first ones.

    Example:
        >>> [num_sources(position) for position in (0, 2, 3, 19)]
        [0, 0, 1, 17]
    """
    return max(position - FIRST + 1, 0)


def joined_width(width: int, source: int) -> int:
    """Channels of input 0 with those that are joined to it.

    Args:
        width: channels of input 0.
        source: channels of the cell that is read.

    Raises:
        UserError: the source has no whole number of channels for each of those that are joined.
    """
    if width % SHARE or source % (width // SHARE):
        raise UserError(
            f"a link joins a quarter of its channels to an input of {width}, averaged from {source}: these must be a "
            "multiple of that quarter, so use more channels or fewer reductions"
        )
    return width + width // SHARE
