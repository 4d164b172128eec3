"""The HTML page around a report: one file, nothing fetched, light and dark, readable on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

#: Nothing but what is inside the file may load or run.
_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_CSS = """
:root{color-scheme:light dark;--paper:#fff;--card:#f7f8fa;--ink:#20262e;--soft:#59616d;--rule:#dfe3e9;--mark:#0072b2;
--shade:#0003;--edge:#d5d9e0;--input:#e3e7ee;--warm:#c2410c;--warm-card:#fff7ed;
--low:#2166ac;--high:#b2182b}
@media(prefers-color-scheme:dark){:root{--paper:#14171c;--card:#1d2127;--ink:#e6e9ee;--soft:#a3acb9;--rule:#343b45;
--mark:#6cb8ee;--shade:#000c;--edge:#434b57;--input:#343b45;--warm:#fb923c;
--warm-card:#2b1f17;--low:#67a9cf;--high:#ef8a62}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
main{max-width:1250px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0 .4rem}h2{font-size:1.3rem;margin:2.6rem 0 .6rem;padding-top:1rem;
border-top:1px solid var(--rule)}h3{font-size:1.05rem;margin:1.8rem 0 .5rem}
h4{font-size:.92rem;margin:.1rem .2rem .3rem}
nav{font-size:.88rem;margin:.8rem 0;display:flex;flex-wrap:wrap;gap:.15rem .9rem}nav b{flex-basis:100%}
p{margin:.4rem 0 .8rem;max-width:46rem}.soft,figcaption,small{color:var(--soft)}a{color:var(--mark)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:.7rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.6rem .8rem}
.tile b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile span{color:var(--soft);font-size:.82rem}
.scroll{overflow:auto;max-height:36rem;border:1px solid var(--rule);border-radius:10px;margin:.6rem 0}
.scroll,.wide,.strip{scrollbar-width:thin}
.scroll{background:linear-gradient(to left,var(--paper) 1.5rem,transparent) right/3rem 100% no-repeat local,
linear-gradient(to left,var(--shade),transparent) right/1.2rem 100% no-repeat scroll}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.38rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
td{overflow-wrap:break-word}.facts td+td{overflow-wrap:anywhere}
thead th{position:sticky;top:0;background:var(--paper);border-bottom-width:2px;
vertical-align:bottom;color:var(--soft);font-weight:600}
th button{all:unset;cursor:pointer}th button:focus-visible{outline:2px solid var(--mark)}
th[aria-sort] button::after{content:" ↑" / ""}th[aria-sort=descending] button::after{content:" ↓" / ""}
tbody tr:last-child>*{border-bottom:0}
.cut{max-width:34rem;overflow:hidden;white-space:nowrap;text-overflow:ellipsis}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:1rem}
.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem;min-width:0}
figcaption{font-size:.84rem;margin:.2rem .2rem .1rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:.7rem}
.pictures img{width:96px;height:96px;object-fit:contain;image-rendering:pixelated}
.pictures figcaption{overflow-wrap:anywhere}
.chart{height:340px}.small .chart{height:250px}.tall .chart{height:820px}
.updatemenu-item-rect{fill:var(--card)!important}
.drawing{background:var(--paper);border-radius:8px;padding:.5rem}.drawn{display:grid;gap:1rem}
.drawn figure{max-width:100%;scroll-margin-top:1rem}.drawing text{dominant-baseline:central;text-anchor:middle}
.strip{overflow-x:auto;margin-bottom:.4rem}.strip svg{display:block;margin:auto}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:.5rem}
.few{grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.panels svg{display:block;width:100%;height:auto;max-width:500px;margin:auto}
pre{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem .9rem;overflow-x:auto;
font-size:.82rem;line-height:1.45;max-height:28rem}
main>pre{white-space:pre-wrap;overflow-wrap:anywhere}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--mark)}
.note{border-left:3px solid var(--mark);padding:.1rem .8rem;margin:1rem 0}
@media(max-width:600px){main{padding:1rem .7rem 3rem}figure{padding:.4rem}.chart{height:290px}
.wide{overflow-x:auto}.wide .chart{min-width:640px}}
@media print{.chart{break-inside:avoid}.scroll{max-height:none}}
"""

#: Tables are sorted by the column whose heading is pressed, and a link to a folded drawing unfolds it.
_TABLES = """
(() => {
  const number = text => parseFloat((/^[-+]?[\\d,]*\\.?\\d+(e[-+]?\\d+)?/i.exec(text) || ['x'])[0].replaceAll(',', ''));
  for (const table of document.querySelectorAll('table.sorted')) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener('click', () => {
      const numbers = head.className === 'n';
      const found = [...body.rows].map(row => [row.cells[column].textContent, row]);
      const given = found.filter(([text]) => numbers ? !isNaN(number(text)) : text);
      const before = head.getAttribute('aria-sort');
      const down = before ? before === 'ascending' : numbers;
      given.sort(([a], [b]) => (down ? -1 : 1) * (numbers ? number(a) - number(b) :
        a.localeCompare(b, 'en', {numeric: true})));
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      body.append(...given.map(([, row]) => row), ...found.filter(pair => !given.includes(pair)).map(([, row]) => row));
    }));
  }
  const unfold = () => {
    const folded = document.getElementById(location.hash.slice(1))?.closest('details');
    if (folded && !folded.open) { folded.open = true; folded.scrollIntoView(); }
  };
  addEventListener('hashchange', unfold);
  unfold();
})();
"""

_CHARTS = """
(() => {
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = given => ({automargin: true, gridcolor: colour('--rule'), zerolinecolor: colour('--rule'),
    linecolor: colour('--rule'), ...given, title: {standoff: 8, ...given?.title}});
  const themed = layout => ({margin: {l: 12, r: 12, t: 12, b: 12}, paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)', legend: {orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0},
    ...layout, font: {color: colour('--ink'), size: 12, family: getComputedStyle(document.body).fontFamily},
    xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    ...(layout.annotations && {annotations: layout.annotations.map(mark => ({bgcolor: colour('--card'), ...mark}))}),
    ...(layout.updatemenus && {updatemenus: layout.updatemenus.map(menu => ({...menu, bgcolor: colour('--card'),
      bordercolor: colour('--rule'), font: {color: colour('--ink')}}))})});
  const inked = spec => JSON.parse(JSON.stringify(spec).replace(/"(--(?:card|low|high))"/g,
    (_, name) => JSON.stringify(colour(name))));
  const charts = [...document.querySelectorAll('.chart')].map(element => {
    const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
    const named = spec.data.filter(trace => trace.name && trace.showlegend !== false)
      .reduce((lines, trace) => lines + trace.name.split('<br>').length, 0);
    if (named > 8) {  // a long legend takes nothing of the chart's own height
      const rows = Math.ceil(named / Math.max(1, Math.floor(element.clientWidth / 210)));
      element.style.height = `${element.clientHeight + 22 * rows}px`;
    }
    Plotly.newPlot(element, inked(spec.data), themed(spec.layout), {responsive: true, displaylogo: false,
      displayModeBar: matchMedia('(hover: hover)').matches ? 'hover' : false});
    return [element, spec];
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () =>
    charts.forEach(([element, spec]) => Plotly.react(element, inked(spec.data), themed(spec.layout))));
})();
"""


def document(title: str, body: Iterable[str], library: str | None) -> str:
    """The whole page, its contents under the title; `library` is the source of plotly, None when there is no chart."""
    scripts = f"<script>{library}</script>\n<script>{_CHARTS}</script>" if library else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<main>
{_with_contents("".join(body))}
</main>
<script>{_TABLES}</script>
{scripts}
</body>
</html>
"""


def _with_contents(body: str) -> str:
    """The content of the page with a name for each heading, and links to them under its title."""
    links: list[str] = []

    def named(heading: re.Match[str]) -> str:
        level, words = heading[1], heading[2]
        link = f'<a href="#part{len(links)}">{words}</a>'
        name = f'<h{level} id="part{len(links)}">{words}</h{level}>'
        links.append(f"<b>{link}</b>" if level == "2" else link)
        return name

    named_body = re.sub(r"<h([23])>(.*?)</h\1>", named, body)
    return named_body.replace("</h1>", f'</h1><nav aria-label="Contents">{"".join(links)}</nav>', 1)


def chart(spec: Mapping[str, Any], title: str, caption: str, identifier: str) -> str:
    """A chart under its title and over its caption; the data stand beside it as JSON.

    The colours `--card`, `--low` and `--high` of traces are those of the page, for light and dark.
    """
    data = json.dumps(spec, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    return (
        f"<figure><h4>{escape(title)}</h4>"
        f'<div class="chart" data-spec="{identifier}" role="img" aria-label="{escape(caption)}"></div>'
        f'<script type="application/json" id="{identifier}">{data}</script>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def drawing(strip: str | None, panels: Sequence[str], caption: str, identifier: str) -> str:
    """A drawing of SVG elements: a strip across, and panels in as many columns as there is room for."""
    across = f'<div class="strip">{strip}</div>' if strip is not None else ""
    few = " few" if len(panels) in (1, 2, 4) else ""
    return (
        f'<figure id="{identifier}"><div class="drawing">{across}<div class="panels{few}">{"".join(panels)}</div></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and what they are; long words are broken."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(what)}</td></tr>" for name, what in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


class Cut(str):
    """A text of a table that stands on one line, cut where the line ends; whole when the pointer rests on it."""

    LETTERS = 200

    def cell(self, numeric: bool) -> str:
        """The cell with at most `LETTERS` letters to see."""
        seen = " ".join(self[: self.LETTERS].split()) + ("…" if len(self) > self.LETTERS else "")
        return f'<td class=cut title="{escape(self)}">{escape(seen)}</td>'


class Link(str):
    """A text of a table that leads to another place of the page."""

    target: str

    def __new__(cls, text: str, target: str) -> Link:
        """The text, and the name of the place."""
        link = super().__new__(cls, text)
        link.target = target
        return link

    def cell(self, numeric: bool) -> str:
        """The cell with its link."""
        return f'<td{_side(numeric)}><a href="#{self.target}">{escape(self)}</a></td>'


def _side(numeric: bool) -> str:
    return " class=n" if numeric else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table that is sorted by the column whose heading is pressed, and scrolls sideways on a narrow screen.

    `numeric` columns stand to the right. A long heading breaks behind its dots, slashes and underscores.
    """
    right = set(numeric)
    marked = (re.sub(r"([./_])", r"\1<wbr>", escape(name)) for name in head)
    heads = "".join(
        f"<th{_side(place in right)}><button type=button>{name}</button></th>" for place, name in enumerate(marked)
    )
    body = "".join(f"<tr>{''.join(_cell(text, i in right) for i, text in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="sorted"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(text: str, numeric: bool) -> str:
    if isinstance(text, (Cut, Link)):
        return text.cell(numeric)
    return f"<td{_side(numeric)}>{escape(text)}</td>"


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Numbers that stand out: (value, what it is)."""
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in items)
    return f'<div class="tiles">{"".join(cells)}</div>'


def folded(summary: str, part: str) -> str:
    """A part of the page, as HTML, that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>{part}</details>"


def details(summary: str, text: str) -> str:
    """Text that opens on demand."""
    return folded(summary, f"<pre>{escape(text)}</pre>")
