"""Links: the cells that a cell may read beside the two before it (the global connection of U-DARTS). Torch-free.

If k is 3 or more, cell k reads one of the cells 0 to k - 3. The output of this earlier cell is averaged over
neighbouring channels and pixels, until it has a quarter of the channels of input 0, and the same size. Then it is
joined to input 0.
"""

from __future__ import annotations

from ..ground.errors import UserError

#: The first cell that has cells to choose from.
FIRST = 3

#: Channels of input 0 for each that is joined to it.
SHARE = 4


def num_sources(position: int) -> int:
    """How many cells the cell at a position may choose from; they are the first cells of the network.

    Example:
        >>> [num_sources(position) for position in (0, 2, 3, 19)]
        [0, 0, 1, 17]
    """
    return max(position - FIRST + 1, 0)


def joined_width(width: int, source: int) -> int:
    """Number of channels of input 0 together with the channels that are joined to it.

    Args:
        width: number of channels of input 0.
        source: number of channels of the cell that is read.

    Raises:
        UserError: the channels of the source cannot be divided evenly among those that are joined.
    """
    if width % SHARE or source % (width // SHARE):
        raise UserError(
            f"a link joins a quarter of its channels to an input of {width}, averaged from {source}: these must be a "
            "multiple of that quarter, so use more channels or fewer reductions"
        )
    return width + width // SHARE
