"""How an operation looks and what it is called in a drawing: the same everywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

#: One colour per operation, the same in every drawing: families share a hue, larger kernels are darker.
OPERATION_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "skip_connect": "#8a8f98",
        "max_pool_3x3": "#f2c14e",
        "avg_pool_3x3": "#f7dc93",
        "sep_conv_3x3": "#74b3e8",
        "sep_conv_5x5": "#2f7fc4",
        "sep_conv_7x7": "#1b4f86",
        "dil_conv_3x3": "#8fd19e",
        "dil_conv_5x5": "#2f9e58",
        "simple_conv_1x1": "#f3b3a6",
        "simple_conv_3x3": "#e07a5f",
        "simple_conv_5x5": "#a8452c",
        "bottleneck_1x3x1": "#7b5ea7",
        "conv_3x1_1x3": "#d9a5d6",
        "conv_7x1_1x7": "#b0579f",
    }
)

#: What stands on an edge.
OPERATION_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "skip_connect": "skip",
        "max_pool_3x3": "max 3×3",
        "avg_pool_3x3": "avg 3×3",
        "sep_conv_3x3": "sep 3×3",
        "sep_conv_5x5": "sep 5×5",
        "sep_conv_7x7": "sep 7×7",
        "dil_conv_3x3": "dil 3×3",
        "dil_conv_5x5": "dil 5×5",
        "simple_conv_1x1": "conv 1×1",
        "simple_conv_3x3": "conv 3×3",
        "simple_conv_5x5": "conv 5×5",
        "bottleneck_1x3x1": "bneck 1·3·1",
        "conv_3x1_1x3": "3×1 · 1×3",
        "conv_7x1_1x7": "7×1 · 1×7",
    }
)

#: Colour of an operation that is not in the table, as those of plug-ins are not.
UNKNOWN = "#444444"


def colour_of(operation: str) -> str:
    """The colour of an operation. All that the table lacks share one."""
    return OPERATION_COLOURS.get(operation, UNKNOWN)


def label_of(operation: str) -> str:
    """What stands on its edges: its name, if the table has no shorter label."""
    return OPERATION_LABELS.get(operation, operation)


def in_order(operations: Collection[str]) -> list[str]:
    """Operations in the order of the table, those that it lacks after them, by name."""
    known = [name for name in OPERATION_COLOURS if name in operations]
    return [*known, *sorted(set(operations) - set(known))]


#: Okabe and Ito's colours, distinguishable with colour vision deficiency; they repeat after eight.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280", "#b8a800")

#: Shapes of points whose colours repeat: matplotlib's name, and plotly's.
SHAPES = (("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("D", "diamond"))


def shape_of(index: int) -> tuple[str, str]:
    """The shape of the points of the series of this number, by matplotlib's name and by plotly's."""
    return SHAPES[index // len(COLOURS) % len(SHAPES)]


#: Dashes of lines whose colours repeat: matplotlib's name, and plotly's.
DASHES = (("-", "solid"), ("--", "dash"), (":", "dot"), ("-.", "dashdot"))


def dash_of(index: int) -> tuple[str, str]:
    """The dashes of the line of the series of this number, by matplotlib's name and by plotly's."""
    return DASHES[index // len(COLOURS) % len(DASHES)]


#: Letters in a line of a legend, which a chart on a telephone has room for.
LEGEND = 40


def shortened(name: str, letters: int = 18) -> str:
    """A name that takes at most so many letters, with an ellipsis where it was cut off."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
