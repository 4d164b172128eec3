"""The HTML page around a report: one file, nothing fetched, light and dark, readable on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

#: Nothing but what is inside the file may load or run.
_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_CSS = """
:root{color-scheme:light dark;--paper:#fff;--card:#f7f8fa;--ink:#20262e;--soft:#59616d;--rule:#dfe3e9;--mark:#0072b2;
--shade:#0003}
@media(prefers-color-scheme:dark){:root{--paper:#14171c;--card:#1d2127;--ink:#e6e9ee;--soft:#a3acb9;--rule:#343b45;
--mark:#6cb8ee;--shade:#000c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0 .4rem}h2{font-size:1.3rem;margin:2.6rem 0 .6rem;padding-top:1rem;
border-top:1px solid var(--rule)}h3{font-size:1.05rem;margin:1.8rem 0 .5rem}
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
th,td{padding:.38rem .65rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
td{overflow-wrap:break-word}.facts td+td{overflow-wrap:anywhere}
thead th{position:sticky;top:0;background:var(--paper);border-bottom-width:2px;
white-space:nowrap;color:var(--soft);font-weight:600}
tbody tr:last-child>*{border-bottom:0}
.cut{max-width:34rem;overflow:hidden;white-space:nowrap;text-overflow:ellipsis}
td.n,th.n{text-align:right;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:1rem}
.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem;min-width:0}
figcaption{font-size:.84rem;margin:.2rem .2rem .1rem}
.chart{height:340px}.small .chart{height:250px}.tall .chart{height:820px}
.updatemenu-item-rect{fill:var(--card)!important}
.drawing{background:#fff;border-radius:8px;padding:.5rem}.drawn{display:grid;gap:1rem}.drawn figure{max-width:100%}
.strip{overflow-x:auto;margin-bottom:.4rem}.strip img{display:block;margin:auto}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:.5rem}
.few{grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.panels img{display:block;width:100%;max-width:500px;margin:auto}
pre{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem .9rem;overflow-x:auto;
font-size:.82rem;line-height:1.45;max-height:28rem}
main>pre{white-space:pre-wrap;overflow-wrap:anywhere}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--mark)}
.note{border-left:3px solid var(--mark);padding:.1rem .8rem;margin:1rem 0}
@media(max-width:600px){main{padding:1rem .7rem 3rem}figure{padding:.4rem}.chart{height:290px}
.wide{overflow-x:auto}.wide .chart{min-width:640px}}
@media print{.chart{break-inside:avoid}.scroll{max-height:none}}
"""

_JS = """
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
  const charts = [...document.querySelectorAll('.chart')].map(element => {
    const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
    Plotly.newPlot(element, spec.data, themed(spec.layout), {responsive: true, displaylogo: false,
      displayModeBar: matchMedia('(hover: hover)').matches ? 'hover' : false});
    return [element, spec];
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () =>
    charts.forEach(([element, spec]) => Plotly.react(element, spec.data, themed(spec.layout))));
})();
"""


def document(title: str, body: Iterable[str], library: str | None) -> str:
    """The whole page; `library` is the source of plotly, None when there is no chart."""
    scripts = f"<script>{library}</script>\n<script>{_JS}</script>" if library else ""
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
{"".join(body)}
</main>
{scripts}
</body>
</html>
"""


def chart(spec: Mapping[str, Any], caption: str, identifier: str) -> str:
    """A chart and its caption; the data stand beside it as JSON."""
    data = json.dumps(spec, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<figure><div class="chart" data-spec="{identifier}" role="img" aria-label="{escape(caption)}"></div>'
        f'<script type="application/json" id="{identifier}">{data}</script>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def drawing(strip: str | None, panels: Sequence[str], caption: str) -> str:
    """A drawing of SVG documents: a strip across, and panels in as many columns as there is room for.

    Each is an image, so that its styles stay its own.
    """
    across = f'<div class="strip">{_image(strip)}</div>' if strip is not None else ""
    few = " few" if len(panels) in (1, 2, 4) else ""
    return (
        f'<figure><div class="drawing" role="img" aria-label="{escape(caption)}">{across}'
        f'<div class="panels{few}">{"".join(map(_image, panels))}</div></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _image(svg: str) -> str:
    source = quote(svg, safe=" !$'()*+,-./:;=?@[]^_`{|}~")
    return f'<img alt="" src="data:image/svg+xml;charset=utf-8,{source}">'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and what they are; long words are broken."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(what)}</td></tr>" for name, what in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


class Cut(str):
    """A text of a table that stands on one line, cut where the line ends; whole when the pointer rests on it."""

    LETTERS = 200

    def cell(self) -> str:
        """The cell with at most `LETTERS` letters to see."""
        seen = " ".join(self[: self.LETTERS].split()) + ("…" if len(self) > self.LETTERS else "")
        return f'<td class=cut title="{escape(self)}">{escape(seen)}</td>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table that scrolls sideways on a narrow screen; `numeric` columns stand to the right."""
    right = set(numeric)

    def line(cells: Sequence[str], tag: str) -> str:
        marked = (
            c.cell() if isinstance(c, Cut) else f"<{tag}{' class=n' if i in right else ''}>{escape(c)}</{tag}>"
            for i, c in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Numbers that stand out: (value, what it is)."""
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in items)
    return f'<div class="tiles">{"".join(cells)}</div>'


def details(summary: str, text: str) -> str:
    """Text that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"
