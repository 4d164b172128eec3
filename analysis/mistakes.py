"""Images that a network took for another class, as a part of the report and as a figure."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.mistakes import FILE, Mistake, read_mistakes

from .canvas import new_figure

#: Images in a row of a figure.
COLUMNS = 4


def section(folder: Path, what: str) -> str:
    """HTML of the mistakes that lie in the folder of a trial; empty where there are none.

    Args:
        folder: the folder of the trial.
        what: what made the mistakes, in words.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / FILE).is_file():
        return ""
    classes, found = read_mistakes(folder / FILE)
    if not found:
        return ""
    pictures = "".join(_picture(classes, one) for one in found)
    caption = (
        f"The {len(found)} images that {what} is surest about and wrong, as it sees them: the class of each, what it "
        "was taken for, and with what probability."
    )
    return f'<h3>Surest mistakes</h3><p class="soft">{escape(caption)}</p><div class="pictures">{pictures}</div>'


def _picture(classes: Sequence[str], one: Mistake) -> str:
    true, said = (escape(classes[place]) for place in (one.true, one.predicted))
    return (
        f'<figure><img src="{one.uri}" alt="{true}, taken for {said}"><figcaption><b>{true}</b><br>taken for {said}, '
        f"{100 * one.probability:.1f}&nbsp;%</figcaption></figure>"
    )


def figure_of(folder: Path | None, title: str) -> Figure:
    """The mistakes that lie in the folder of a trial or of a retrain as a figure.

    Raises:
        UserError: there is no such file, it is damaged, or no image was taken for another class.
    """
    if folder is None or not (folder / FILE).is_file():
        raise UserError(f"{title} has no {FILE}: only a derived network that was trained and scored has one")
    classes, found = read_mistakes(folder / FILE)
    if not found:
        raise UserError(f"{title}: no image was taken for another class")
    rows = math.ceil(len(found) / COLUMNS)
    drawn = new_figure(1.9 * COLUMNS, 2.3 * rows + 0.4)
    drawn.set_layout_engine("constrained")
    drawn.suptitle(title, fontsize=9)
    places = drawn.subplots(rows, COLUMNS, squeeze=False).ravel()
    for ax in places:
        ax.set_axis_off()
    for ax, one in zip(places, found, strict=False):
        ax.imshow(Image.open(io.BytesIO(one.png)).convert("RGB"), interpolation="nearest")
        said = f"{classes[one.true]}\ntaken for {classes[one.predicted]},\n{100 * one.probability:.1f} %"
        ax.set_title(said, fontsize=7)
    return drawn
