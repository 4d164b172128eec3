"""Which package and which room imports which, read from the sources: `python -m tests.architecture` draws it.

It writes docs/architecture.svg and the table of rooms in docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
PAGE = ROOT / "docs" / "architecture.md"

#: The floors above the core: what is imported, and its folder.
PACKAGES = {
    "ddarts_tuning": ROOT / "tuning",
    "ddarts_analysis": ROOT / "analysis",
    "ddarts_cli": ROOT / "ddarts_cli",
    "ddarts": ROOT / "ddarts_cli" / "api",
}
CORE = "ddarts_core"

Graph = Mapping[str, set[str]]


# --- what imports what ----------------------------------------------------------------------------------------------


def rooms_above(package: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The rooms that each room of a package imports when it is loaded, and those that it knows otherwise.

    Otherwise is: inside of a function, which imports when it is called, or for a type checker only. A room is a folder
    of the package; what lies in a folder of a room belongs to the room.
    """
    loaded: dict[str, set[str]] = {}
    later: dict[str, set[str]] = {}
    for path in package.glob("*/**/*.py"):
        inside = path.relative_to(package).parent.parts
        loaded.setdefault(inside[0], set())
        for node, deferred in _imports(ast.parse(path.read_text(encoding="utf-8")), False):
            if node.level == len(inside) + 1:
                found = {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
                (later if deferred else loaded).setdefault(inside[0], set()).update(found)
    return loaded, later


def packages_below() -> dict[str, set[str]]:
    """The packages that each package imports, when it is loaded or later."""
    found: dict[str, set[str]] = {CORE: set()}
    for name, folder in PACKAGES.items():
        inner = [other for other in PACKAGES.values() if other != folder and other.is_relative_to(folder)]
        paths = [path for path in folder.rglob("*.py") if not any(path.is_relative_to(other) for other in inner)]
        nodes = [node for path in paths for node, _ in _imports(ast.parse(path.read_text(encoding="utf-8")), False)]
        found[name] = {node.module.partition(".")[0] for node in nodes if node.module} & {*PACKAGES, CORE} - {name}
    return found


def _imports(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.ImportFrom, bool]]:
    """Each `from ... import` below a node, and whether it is for later."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield child, deferred
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
        )
        yield from _imports(child, deferred or later)


def without_shortcuts(graph: Graph) -> dict[str, set[str]]:
    """The same graph without each edge that a longer way stands for."""
    below: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        below[name] = graph[name].union(*(below[other] for other in graph[name]))
    return {name: others - set().union(*(below[other] for other in others)) for name, others in graph.items()}


def rows(graph: Graph) -> dict[str, int]:
    """How high each name stands: above all that it imports, and close below what imports it."""
    order = list(TopologicalSorter(graph).static_order())
    found: dict[str, int] = {}
    for name in order:
        found[name] = max((found[other] + 1 for other in graph[name]), default=0)
    for name in reversed(order):
        above = [found[other] for other in order if name in graph[other]]
        found[name] = min(above) - 1 if above else found[name]
    return found


# --- the drawing ----------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, GAP = 118, 34, 58
STYLE = """
  text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #1f2933 }
  .small { font-size: 11px; fill: #52606d }
  rect { fill: #e8edf8; stroke: #3d5a98 }
  .frame { fill: #f7f8fa; stroke: #9aa5b1 }
  path { fill: none; stroke: #7b8794; stroke-width: 1.2 }
"""


def placed(graph: Graph) -> tuple[dict[str, tuple[float, float]], list[list[str]]]:
    """Centres of the names, and for each edge the points that it passes: one in each row that it crosses."""
    height = rows(graph)
    ways: list[list[str]] = []
    lines: list[list[str]] = [[] for _ in range(max(height.values()) + 1)]
    for name in sorted(graph):
        lines[height[name]].append(name)
        for other in sorted(graph[name]):
            between = [f"{name}>{other}@{row}" for row in range(height[name] - 1, height[other], -1)]
            ways.append([name, *between, other])
            for row, point in zip(range(height[name] - 1, height[other], -1), between, strict=True):
                lines[row].append(point)
    beside: dict[str, list[str]] = {point: [] for line in lines for point in line}
    for way in ways:
        for upper, lower in pairwise(way):
            beside[upper].append(lower)
            beside[lower].append(upper)
    x: dict[str, float] = {}
    for line in lines:
        _spread(line, x)
    for sweep in range(24):
        for line in lines if sweep % 2 else reversed(lines):
            line.sort(key=lambda point: mean([x[other] for other in beside[point]] or [x[point]]))
            _spread(line, x)
    top = len(lines) - 1
    return {point: (x[point], (top - row) * (HEIGHT + GAP)) for row, line in enumerate(lines) for point in line}, ways


def _spread(line: list[str], x: dict[str, float]) -> None:
    """Set the points of a row side by side, their middle at 0."""
    widths = [WIDTH + 16 if ">" not in point else 30 for point in line]
    left = -sum(widths) / 2
    for point, width in zip(line, widths, strict=True):
        x[point], left = left + width / 2, left + width


def _box(name: str, x: float, y: float, under: str = "", width: float = WIDTH) -> str:
    """A box around its centre, with its name."""
    text = f'<text x="{x:.0f}" y="{y + (-2 if under else 5):.0f}">{name}</text>'
    small = f'<text class="small" x="{x:.0f}" y="{y + 12:.0f}">{under}</text>' if under else ""
    box = f'<rect x="{x - width / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"/>'
    return box + text + small


def _arrow(points: list[tuple[float, float]]) -> str:
    """A line from the lower edge of the first box to the upper edge of the last."""
    (x, y), *middle, (end_x, end_y) = points
    path, at = f"M{x:.0f} {y + HEIGHT / 2:.0f}", (x, y + HEIGHT / 2)
    for x, y in [*middle, (end_x, end_y - HEIGHT / 2 - 4)]:
        bend = (at[1] + y) / 2
        path, at = path + f" C{at[0]:.0f} {bend:.0f} {x:.0f} {bend:.0f} {x:.0f} {y:.0f}", (x, y)
    return f'<path d="{path}" marker-end="url(#head)"/>'


def drawing() -> str:
    """The picture as SVG: who imports whom, arrows down only; an arrow that others stand for is left out."""
    rooms = without_shortcuts(rooms_above(ROOT / CORE)[0])
    places, ways = placed(rooms)
    half = max(abs(x) for x, _ in places.values()) + WIDTH / 2 + 14
    packages = without_shortcuts(packages_below())
    floors, routes = placed(packages)
    down = max(y for _, y in floors.values())  # the core itself, which is a frame
    shift = down + 22
    parts = [f'<rect class="frame" x="{-half:.0f}" y="{down - HEIGHT / 2:.0f}" width="{2 * half:.0f}" rx="8"']
    parts[0] += f' height="{max(y for _, y in places.values()) + HEIGHT + 44:.0f}"/>'
    parts += [f'<text x="{-half + 54:.0f}" y="{down + 4:.0f}">{CORE}</text>']
    parts += [_arrow([floors[point] for point in route]) for route in routes]
    for name, folder in PACKAGES.items():
        inside = "tuning/" if name == "ddarts_tuning" else f"{folder.relative_to(ROOT)}/"
        parts.append(_box(name, *floors[name], under=inside))
    parts += [_arrow([(places[p][0], places[p][1] + shift) for p in way]) for way in ways]
    parts += [_box(name, places[name][0], places[name][1] + shift) for name in sorted(rooms)]
    high = shift + max(y for _, y in places.values()) + HEIGHT + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-half - 6:.0f} {-HEIGHT:.0f} {2 * half + 12:.0f} '
        f'{high + HEIGHT:.0f}" role="img" aria-label="Which package and which room imports which">'
    )
    marker = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" style="fill: #7b8794; stroke: none"/></marker></defs>'
    )
    ground = '<rect class="frame" style="stroke: none; fill: white" x="-9999" y="-999" width="19998" height="9999"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", marker, ground, *parts, "</svg>", ""])


# --- the table ------------------------------------------------------------------------------------------------------


def table() -> str:
    """A row for each room of the core, the highest first; below, which of them know a room above them."""
    loaded, later = rooms_above(ROOT / CORE)
    height = rows(without_shortcuts(loaded))
    lines = ["| room | what lies in it |", "|---|---|"]
    for name in sorted(loaded, key=lambda room: (-height[room], room)):
        doc = ast.get_docstring(ast.parse((ROOT / CORE / name / "__init__.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"| `{name}` | {doc.splitlines()[0]} |")
    upward = []
    for name in sorted(later):
        if known := sorted(other for other in later[name] if name in _all_below(other, loaded)):
            upward.append(f"`{name}` knows {' and '.join(f'`{other}`' for other in known)}")
    lines += ["", f"Of rooms above them, when they are called or for types only: {'; '.join(upward)}."]
    return "\n".join(lines) + "\n"


def _all_below(name: str, graph: Graph) -> set[str]:
    return graph[name].union(*(_all_below(other, graph) for other in graph[name]))


def page(text: str) -> str:
    """The text of the page with its table as it is now."""
    before, begin, rest = text.partition("<!-- rooms -->\n")
    _, end, after = rest.partition("<!-- end of rooms -->\n")
    return before + begin + table() + end + after


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
