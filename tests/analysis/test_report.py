from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path

import pandas as pd
import pytest
from ddarts_analysis import cell_charts, charts, parameter_charts
from ddarts_analysis.collect import frames_of, load
from ddarts_analysis.palette import LEGEND, OPERATION_COLOURS
from ddarts_analysis.report import report
from ddarts_analysis.report_text import budget
from ddarts_analysis.study import Study, Trial, read_study, trial_row
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as BrowserPage

from ddarts_core.datasets.facts import DataInfo, document, write_facts
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.genotypes.spaces import S
from ddarts_core.ground.errors import UserError
from ddarts_core.loops.confusion import Confusion, write_confusion
from ddarts_core.loops.mistakes import Mistake, write_mistakes
from ddarts_core.loops.records import write_jsonl
from tests.analysis import conftest
from tests.analysis.conftest import CELLS, EPOCHS, MakeStudy, genotype_of, record_of, write_study, write_trial
from tests.analysis.test_drawing import full_cell
from tests.browser import browser, needs_chromium

__all__ = ["browser"]  # a fixture


class Page(HTMLParser):
    """Addresses, ids and text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.specs: list[str] = []
        self.ids: list[str] = []
        self.contents: list[str] = []
        self.text = ""
        self.tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.specs += [value or "" for name, value in attrs if name == "data-spec"]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data):
        if self.tag not in ("script", "style"):
            self.text += data
        if (self.get_starttag_text() or "").startswith('<a href="#part'):
            self.contents.append(data)


def body(path: Path) -> str:
    """The page without plotly's source."""
    text = path.read_text()
    start = text.find("<script>/**")
    return text if start < 0 else text[:start]


def specs(path: Path) -> list[dict]:
    return [json.loads(s) for s in re.findall(r'<script type="application/json" id="c\d+">(.*?)</script>', body(path))]


def test_one_file_tells_the_whole_study(study: Path, tmp_path: Path):
    info = DataInfo("folder", 2, 3, 32, (0.5,) * 3, (0.2,) * 3, ("ant", "bee"))
    write_facts(study, document(info, [30, 90], ["2 broken images left out, as data.on_broken says"]))
    path = report([study], tmp_path / "r.html")
    page = Page(body(path))
    for expected in (
        "Study toy, started 2026-01-02 03:04 UTC: 9 searches with ddarts, fairdarts on digits",
        "65.00 %",
        "the largest of 2 classes, bee, has 75.0 % of the training images",
        "2 broken images left out, as data.on_broken says",
        "held-out accuracy of the best, trial 00005, chosen among 6 by held-out images",
        "its number flatters it: the one to report is that of ddarts retrain on the test split",
        "6 of 9",
        "1 of 9 trials had not ended",
        "RuntimeError: <out of memory>",
        "ddarts sweep quickstart_sweep.yaml",
        "f" * 40,
        f"ddarts export {study} --top 3",
        genotype_of(5).hash,
        "Objective against search.w_zero_one.",
    ):
        assert expected in page.text, expected
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert page.text.count("concat c") == 6 * 4  # the cells of each completed trial
    links = [address[1:] for address in page.addresses if address.startswith("#")]
    assert sum(link.startswith("drawing") for link in links) == 6 and set(links) <= set(page.ids)
    assert [text for text in page.contents if text in ("Ranking", "Genotypes", "How to reproduce")] == [
        "Ranking",
        "Genotypes",
        "How to reproduce",
    ]
    assert len(page.specs) == len(set(page.specs)) == len(specs(path)) >= 5


def test_two_objectives_end_in_the_pareto_front(make_study: MakeStudy, tmp_path: Path):
    """Trial 0 is the most accurate, 3 the smallest; 1 is beaten by 0 in both, 2 is on the front between them."""
    study, names = make_study(), ("derived/held_out/accuracy", "parameters")
    info = json.loads((study / "study.json").read_text())
    info["objectives"] = [{"metric": names[0], "mode": "max"}, {"metric": names[1], "mode": "min"}]
    (study / "study.json").write_text(json.dumps(info))
    for number, found in enumerate([(0.9, 4000), (0.8, 5000), (0.7, 2000), (0.6, 1000)]):
        cost = {"parameters": found[1], "macs": 1}
        write_trial(study, number, accuracy=found[0], objectives=dict(zip(names, found, strict=True)), cost=cost)
    text = body(report([study], tmp_path / "r.html"))
    assert "<b>3</b><span>trials on the Pareto front</span>" in text and "accuracy of the best" not in text
    assert "no trial beats one of these 3 in derived/held_out/accuracy and parameters" in text
    assert text.count(">parameters</button></th>") == 1 and ">4,000</td>" in text
    rows = re.findall(r'<tr><td>(\d*)</td><td><a href="#drawing\d+">(0000\d)</a></td>', text)
    assert rows == [("1", "00000"), ("2", "00002"), ("3", "00003"), ("", "00001")]
    assert re.findall(r"<figcaption>#(\d), trial (0000\d): ", text) == [("1", "00000"), ("2", "00002"), ("3", "00003")]
    assert f"ddarts export {study} --trial 00002" in text and "--top" not in text


def test_curves_are_the_records_and_the_best_stand_out(study: Path):
    frames = load(study)
    spec = charts.curves(frames.epochs, ["00005", "00004"])
    named = {t["name"]: t for t in spec["data"]}
    assert set(named) == {"#1: 00005", "#2: 00004", "other trials"}
    assert named["#1: 00005"]["y"] == [
        pytest.approx(record_of(5, e).metrics["held_out/accuracy"], rel=1e-4) for e in range(EPOCHS)
    ]
    assert sum(t["showlegend"] for t in spec["data"]) == 3 and len(spec["data"]) == 9


@pytest.fixture
def many(make_study: MakeStudy) -> list[dict]:
    """Rows of 500 completed trials, best first, whose accuracy and cost fall with the place."""
    (one,) = read_study(make_study("COMPLETED")).trials
    values = [(place, 0.9 - place / 1000) for place in range(500)]
    return [
        trial_row(one)
        | {"study": "toy", "trial_id": f"{place:05d}", "number": place, "objective": accuracy}
        | {"derived_accuracy": accuracy, "parameters": 1000 - min(place, 40)}
        | {"params_json": json.dumps({"search.lr": place / 500, "method": "ab"[place % 2]})}
        for place, accuracy in values
    ]


def test_curves_of_many_trials_are_bounded_and_evenly_by_rank(many: list[dict]):
    best = [row["trial_id"] for row in many[:400]]  # the others did not complete
    column = {"study": "toy", "phase": "search", "split": "held_out", "metric": "accuracy"}
    epochs = pd.DataFrame(
        [{**column, "trial_id": row["trial_id"], "epoch": epoch, "value": 0.5} for row in many for epoch in range(3)]
    )
    data = charts.curves(epochs, best)["data"]
    assert len(data) == charts.HIGHLIGHTED + charts.LINES
    assert sum(len(trace["x"]) for trace in data) == 3 * len(data)
    assert {trace["name"] for trace in data if trace["showlegend"]} == {
        "100 of 495 other trials, evenly by rank",
        *(f"#{place + 1}: {place:05d}" for place in range(5)),
    }
    drawn = [int(re.search(r"trial (\d+)", trace["hovertemplate"])[1]) for trace in data[: charts.LINES]]
    assert (drawn[0], drawn[-1]) == (5, 499) and {b - a for a, b in pairwise(drawn)} <= {4, 5, 6}


def test_points_and_lines_of_many_trials_are_bounded(many: list[dict]):
    for path, spec in parameter_charts.slices(many):
        (dots,) = spec["data"]
        assert len(dots["x"]) == len(dots["y"]) == len(dots["text"]) == charts.POINTS, path
        assert (dots["text"][0], dots["text"][-1]) == ("00000", "00499")
    lines = parameter_charts.parallel(pd.DataFrame(many))["data"]
    assert len(lines) == charts.LINES
    assert "trial 00000:" in lines[0]["hovertemplate"] and "trial 00499:" in lines[-1]["hovertemplate"]


def test_the_whole_front_is_shown_whatever_is_left_out(many: list[dict]):
    front, dots = charts.pareto(many)["data"]
    assert len(front["x"]) == 41 and len(dots["x"]) == len(dots["text"]) == 41 + charts.POINTS
    assert dots["text"][:41] == [f"{place:05d}" for place in range(41)]
    assert [colour == dots["marker"]["color"][0] for colour in dots["marker"]["color"]] == [True] * 41 + [False] * 300


def test_the_heat_map_is_of_the_best_trial_that_has_one(study: Path, tmp_path: Path):
    best = study / "trials/00005/records.jsonl"
    lines = [json.loads(line) | {"contributions": []} for line in best.read_text().splitlines()]
    best.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Marginal contribution of each cell of trial 00004" in body(report([study], tmp_path / "r.html"))


def test_gates_of_every_cell_can_be_chosen(study: Path):
    read = read_study(study)
    one = next(t for t in read.trials if t.trial_id == "00003")
    spec = cell_charts.gates(frames_of([replace(read, trials=(one,))]).alphas)
    (heat,), (menu,) = spec["data"], spec["layout"]["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == [f"cell {cell}" for cell in range(CELLS)]
    assert heat["x"] == list(range(EPOCHS)) and len(heat["y"]) == 14 * 7 == len(heat["z"])
    assert heat["y"][0].startswith("0→2 ") and heat["y"][-1].startswith("4→5 ")
    (values,) = menu["buttons"][2]["args"][0]["z"]
    alpha = record_of(3, 1).alphas[2][0][4]
    assert values[4][1] == pytest.approx(1 / (1 + math.exp(-alpha)), abs=0.005)


def test_many_epochs_of_gates_are_thinned_but_not_at_the_ends(make_study: MakeStudy):
    study = make_study("COMPLETED")
    write_jsonl(study / "trials/00000/records.jsonl", [record_of(0, epoch) for epoch in range(150)])
    shown = cell_charts.gates(load(study).alphas)["data"][0]["x"]
    assert (shown[0], shown[-1], len(shown)) == (0, 149, cell_charts.SHOWN_EPOCHS)


def test_gates_of_a_large_network_are_shown_at_fewer_epochs(make_study: MakeStudy, monkeypatch):
    monkeypatch.setattr(cell_charts, "SHOWN_GATES", 20 * CELLS * 14 * 7)
    study = make_study("COMPLETED")
    write_jsonl(study / "trials/00000/records.jsonl", [record_of(0, epoch) for epoch in range(50)])
    (heat,) = cell_charts.gates(load(study).alphas)["data"]
    assert (heat["x"][0], heat["x"][-1], len(heat["x"])) == (0, 49, 20)


def test_failures_are_listed_up_to_a_number(make_study: MakeStudy, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("ddarts_analysis.report_text.LISTED", 2)
    text = Page(body(report([make_study("FAILED", "FAILED", "FAILED")], tmp_path / "r.html"))).text
    assert text.count("out of memory") == 2 and "The first 2 of 3 of these trials." in text


def test_trials_that_did_not_complete_say_why_and_how_good_they_were(make_study: MakeStudy, tmp_path: Path):
    study = make_study("COMPLETED")
    write_trial(study, 1, "PRUNED", reason="stopped by asha", begun="2026-01-02T03:04:11.000000+00:00")
    write_trial(study, 2, "FAILED", reason='first "line"\nsecond' + 300 * "x", begun="2026-01-02T03:05:05.000000+00:00")
    text = body(report([study], tmp_path / "r.html"))
    pruned = '<tr><td>00001</td><td>stopped early</td><td class=cut title="stopped by asha">stopped by asha</td>'
    assert f"{pruned}<td class=n>51.00 %</td><td class=n>2</td></tr>" in text
    assert f'title="first &quot;line&quot;\nsecond{300 * "x"}">first &quot;line&quot; second{181 * "x"}…</td>' in text
    assert text.index("00002</td><td>failed") < text.index("00001</td><td>stopped")
    assert "<b>31 s</b><span>wall time in which trials ran" in text  # 0 to 12.5, 6 to 18.5, 60 to 72.5
    assert "<b>38 s</b><span>time of all trials together" in text
    old = json.loads((study / "trials/00001/trial.json").read_text())
    del old["begun"]
    (study / "trials/00001/trial.json").write_text(json.dumps(old))
    assert "wall time" not in body(report([study], tmp_path / "r.html"))


@pytest.mark.parametrize(
    ("seconds", "tune", "said"),
    [
        ((None, None), {"budget": "epochs", "time_budget_s": None}, ""),
        ((60.0, 60.0), {"budget": "seconds"}, " Each search was given 60 s of wall time."),
        (
            (None, 60.0),
            {"budget": "seconds"},
            " Each search was given its epochs or 60 s of wall time: their accuracies are not of equal budgets.",
        ),
        ((None,), {"budget": "multiply-adds", "budget_amount": 2e12}, " Each search was given 2e+12 multiply-adds."),
        ((None,), {"time_budget_s": 3600.0}, " The whole sweep was given 3600 s, anew after a resume."),
    ],
)
def test_a_budget_is_said(seconds: tuple[float | None, ...], tune: dict, said: str):
    trials = tuple(Trial({"trial_id": str(k), "budget_seconds": each}, (), None) for k, each in enumerate(seconds))
    assert budget(Study(Path("toy"), {"name": "toy", "config": {"tune": tune}}, trials)) == said


def test_the_epochs_of_a_trial_are_those_that_it_had(make_study: MakeStudy, tmp_path: Path):
    study = make_study("COMPLETED")
    config = json.loads((study / "trials/00000/trial.json").read_text())["config"]
    longer = {**config, "search": {**config["search"], "epochs": 40}}
    write_trial(study, 1, config=longer)
    text = body(report([study], tmp_path / "r.html"))
    assert text.count(f"<td class=n>{EPOCHS}+{config['retrain']['epochs']}</td>") == 2


def test_bars_count_the_operations_of_the_genotype(study: Path):
    spec = cell_charts.operations(load(study).genotypes, "00002")
    counted = Counter(edge.op for edge in genotype_of(2).cells[1].edges)
    assert [trace["y"][1] for trace in spec["data"]] == [
        counted[op] for op in OPERATION_COLOURS if any(e.op == op for c in genotype_of(2).cells for e in c.edges)
    ]
    assert cell_charts.operations(load(study).genotypes, "00007") is None


def test_what_mattered_has_importance_and_a_line_per_trial(study: Path, tmp_path: Path):
    path = report(
        [study],
        tmp_path / "r.html",
        lambda *_: {"search.w_zero_one": (0.7, 0.5, 0.8), "ablation.weight": (0.3, 0.1, 0.4)},
    )
    assert "What mattered" in Page(body(path)).text and "Importance of each setting" in Page(body(path)).text
    assert any(trace.get("orientation") == "h" and trace["x"] == [0.3, 0.7] for s in specs(path) for trace in s["data"])
    spec = parameter_charts.parallel(load(study).trials)
    assert len(spec["data"]) == 6 and spec["layout"]["xaxis"]["ticktext"] == [
        "ablation.<br>weight",
        "search.<br>w_zero_one",
        "objective",
    ]
    assert spec["layout"]["coloraxis"]["colorbar"]["ticktext"] == ("0.5", "0.65")
    assert spec["data"][5]["y"][1:] == [1.0, 1.0] and spec["data"][5]["text"][1] == "2"
    assert "Importance" not in Page(body(report([study], tmp_path / "r.html"))).text


def test_slices_show_only_what_varied_and_spread_widths_logarithmically(study: Path):
    rows = [trial_row(t) for t in read_study(study).completed]
    for row, lr in zip(rows, (1e-4, 1e-3, 1e-2, 1e-1, 1, 10), strict=True):
        row["params_json"] = json.dumps({"search.lr": lr, "search.space": "S", "method": f"m{lr > 0.1}"})
    for cells, row in enumerate(rows):
        row["params_json"] = json.dumps(json.loads(row["params_json"]) | {"search.num_cells": 3 + cells // 4})
    found = dict(parameter_charts.slices(rows))
    assert set(found) == {"method", "search.lr", "search.num_cells"}
    assert found["search.lr"]["layout"]["xaxis"]["type"] == "log"
    assert found["search.lr"]["layout"]["xaxis"]["tickvals"] == [1e-4, 1e-3, 1e-2, 0.1, 1, 10]
    assert (
        found["search.num_cells"]["layout"]["xaxis"] | {"type": "linear", "dtick": 1}
        == (found["search.num_cells"]["layout"]["xaxis"])
    )
    sampled = dict(parameter_charts.slices(rows, ["search.num_cells"]))
    assert sampled["search.num_cells"]["layout"]["xaxis"]["type"] == "log"
    assert found["method"]["layout"]["xaxis"]["type"] == "category"


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ((), "no completed trial to rank: it has no trials yet"),
        (("FAILED", "FAILED"), "no completed trial to rank: of its 2 trials, 2 failed"),
        (("RUNNING",), "1 of 1 trials had not ended"),
        (("COMPLETED",), "1 of 1"),
    ],
)
def test_every_study_gets_a_useful_page(make_study: MakeStudy, tmp_path: Path, states, message):
    study = make_study(*states)
    if not states:  # it has just begun
        info = json.loads((study / "study.json").read_text())
        (study / "study.json").write_text(json.dumps({**info, "state": "RUNNING"}))
    path = report([study], tmp_path / "r.html")
    text = Page(body(path)).text
    assert message in text and "How to reproduce" in text
    assert not re.search(r"\b(nan|None|NaN)\b", text)


def test_several_studies_are_compared(make_study: MakeStudy, tmp_path: Path):
    one, two = make_study("COMPLETED", "COMPLETED", name="one"), make_study("FAILED", name="two")
    path = report([one, two, make_study("COMPLETED", "COMPLETED", "COMPLETED", name="three")], tmp_path / "r.html")
    page = Page(body(path))
    named = [[t["name"] for t in spec["data"] if t.get("showlegend", True)] for spec in specs(path)[:4]]
    assert named[0] == ["one, best so far", "three, best so far"]
    assert named[1] == ["one (n = 2)", "two (n = 1)", "three (n = 3)"]
    assert named[2] == named[3] == ["one, front", "three, front"]
    assert "Study one" in page.text and "Study two" in page.text and "mean accuracy (95 % interval)" in page.text
    assert len(page.specs) == len(set(page.specs))


def test_a_long_name_has_several_lines_in_a_legend(study: Path, tmp_path: Path):
    drawn = specs(report([study], tmp_path / "r.html", references={"parameters": 1030}))
    names = [trace["name"].split("<br>") for spec in drawn for trace in spec["data"] if "name" in trace]
    assert "front, hypervolume" in (long := max(" ".join(name) for name in names if len(name) > 1))
    assert long.endswith("cost more or as much)") and max(len(line) for name in names for line in name) <= LEGEND


def test_ten_studies_are_told_apart_in_every_chart(make_study: MakeStudy, tmp_path: Path):
    studies = [make_study("COMPLETED", "COMPLETED", name=f"study-{number}") for number in range(10)]
    for spec in specs(report(studies, tmp_path / "r.html"))[:4]:
        lines = [trace["line"] for trace in spec["data"] if trace.get("showlegend", True)]
        assert len({(line["color"], line["dash"]) for line in lines}) == len(lines) == 10
        dots = [trace["marker"] for trace in spec["data"] if "marker" in trace]
        assert len({(str(mark["color"]), mark["symbol"]) for mark in dots}) == len(dots)


def test_what_a_study_says_is_text_and_never_markup(make_study: MakeStudy, tmp_path: Path):
    study = make_study()
    evil = "</script><script>alert(1)</script>"
    write_trial(study, 0, "FAILED", reason=evil)
    write_trial(study, 1, params={evil: 1})
    write_trial(study, 2, params={evil: 2})
    text = body(report([study], tmp_path / "r.html"))
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_a_big_study_stays_under_6_mb(tmp_path: Path, monkeypatch):
    study = write_study(tmp_path / "big")
    big = Genotype((full_cell(S[:2]), full_cell(S[2:4]), full_cell(S[4:6]), *genotype_of(0).cells), (2, 5))
    monkeypatch.setattr(conftest, "EPOCHS", 1)
    for number in range(100):
        folder = write_trial(study, number)
        write_jsonl(folder / "records.jsonl", [record_of(number, epoch) for epoch in range(50)])
        cells = big.cells[number % 7 :] + big.cells[: number % 7]
        (folder / "genotype.json").write_text(Genotype(cells, (2, 5)).to_json())
    path = report([study], tmp_path / "r.html")
    assert path.stat().st_size < 6_000_000


def test_class_names_confusion_and_surest_mistakes_of_the_best_trial_are_shown(study: Path, tmp_path: Path):
    trial, classes = study / "trials/00005", ("cat", "<dog>")
    write_confusion(trial / "confusion.json", classes, [Confusion("genotype", 0, "held_out", ((7, 3), (0, 5)))])
    write_mistakes(trial / "mistakes.json", classes, [Mistake(0, 1, 0.8764, b"PNG")])
    html = report([study], tmp_path / "r.html").read_text()
    assert "most often cat was taken for &lt;dog&gt; (3 of 10)" in html
    shown = html[html.index("Surest mistakes</h3>") :]
    assert '<img src="data:image/png;base64,UE5H" alt="cat, taken for &lt;dog&gt;">' in shown
    assert "<b>cat</b><br>taken for &lt;dog&gt;, 87.6&nbsp;%" in shown


def test_mistakes_are_one_sentence(study: Path, tmp_path: Path):
    with pytest.raises(UserError, match="at least one study"):
        report([], tmp_path / "r.html")
    with pytest.raises(UserError, match="does not exist"):
        report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(UserError, match="is a folder"):
        report([study], tmp_path)
    (study / "trials/00003/trial.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*trial.json"):
        report([study], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


#: What a person would see amiss, by the chart it is in: labels of one axis over each other or over its title, text
#: that is cut off, and text too close to its background (contrast under 3, WCAG's bound for large text).
AMISS = """() => {
  const found = [];
  const boxes = (plot, query) => [...plot.querySelectorAll(query)].map(
    element => [element.textContent, element.getBoundingClientRect()]);
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const light = rgb => rgb.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255).map(part =>
    part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4).reduce((sum, part, i) =>
    sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  for (const plot of document.querySelectorAll('.chart')) {
    const name = plot.getAttribute('aria-label').slice(0, 40);
    for (const letter of 'xy') {
      const labels = boxes(plot, `.${letter}tick text, .g-${letter}title text`);
      labels.forEach(([text, box], index) => labels.slice(0, index).forEach(([other, its]) =>
        over(box, its) && found.push(`${name}: ${text} over ${other}`)));
    }
    const card = light(getComputedStyle(plot.closest('figure')).backgroundColor);
    const room = plot.getBoundingClientRect();
    for (const [text, box] of boxes(plot, 'text')) if (box.left < room.left - 1 || box.right > room.right + 1)
      found.push(`${name}: ${text} is cut off`);
    for (const text of plot.querySelectorAll('text')) {
      if (text.closest('.heatmaplayer') && text.textContent !== '0') continue;  // 0 stands on the card's colour
      const ink = light(getComputedStyle(text).fill);
      const contrast = (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05);
      if (text.textContent && contrast < 3) found.push(`${name}: contrast ${contrast} of ${text.textContent}`);
    }
  }
  for (const drawing of document.querySelectorAll('.drawing svg')) {
    if (!drawing.checkVisibility()) continue;
    if (drawing.getBoundingClientRect().width < 100) found.push('a drawing is missing');
    const shapes = [...drawing.querySelectorAll('rect, circle')].map(shape => [shape, shape.getBoundingClientRect()]);
    for (const text of drawing.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
      const [below] = shapes.filter(([shape, its]) => shape.compareDocumentPosition(text) & 4 &&
        its.left < x && x < its.right && its.top < y && y < its.bottom).at(-1) || [drawing.closest('.drawing')];
      const fills = [text, below].map(element => light(getComputedStyle(element).fill));
      const contrast = (Math.max(...fills) + 0.05) / (Math.min(...fills) + 0.05);
      if (contrast < 3) found.push(`contrast ${contrast} of ${text.textContent} in a drawing`);
    }
    const card = light(getComputedStyle(drawing.querySelector('rect')).fill);
    if (matchMedia('(prefers-color-scheme: dark)').matches !== card < 0.2) found.push('a card in the wrong colours');
  }
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) found.push(`the page is ${page.scrollWidth} wide on a screen of ${innerWidth}`);
  return found;
}"""


def tables_work(page: BrowserPage) -> None:
    """A press sorts by a column, another the other way; a trial leads to its drawing, which unfolds."""
    ranking = page.locator("table.sorted").first
    trials, accuracies = (ranking.locator(f"tbody td:nth-child({place})") for place in (2, 3))
    for heading, cells in (("trial", trials), ("derived/held_out/accuracy", accuracies)):
        found = cells.all_text_contents()
        ranking.get_by_role("button", name=heading, exact=True).click()
        once = cells.all_text_contents()
        ranking.get_by_role("button", name=heading, exact=True).click()
        assert once == cells.all_text_contents()[::-1] and once in (sorted(found), sorted(found)[::-1])
    folded = page.locator("details .drawing").first
    expect(folded).not_to_be_visible()
    trials.get_by_text("00000").click()
    expect(page.locator("details[open] .drawing")).to_have_count(1)


@needs_chromium
def test_in_a_browser_every_chart_is_drawn_and_readable_on_any_screen(study: Path, tmp_path: Path, browser: Browser):
    matrix = Confusion("genotype", 0, "held_out", ((7, 0), (3, 5)))
    write_confusion(study / "trials/00005/confusion.json", ("cat", "dog"), [matrix])
    path = report(
        [study],
        tmp_path / "r.html",
        lambda *_: {"search.w_zero_one": (0.7, 0.5, 0.8), "ablation.weight": (0.3, 0.1, 0.4)},
    )
    for width, scheme in product((390, 1280), ("light", "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page, messages = context.new_page(), []
        page.on("console", lambda message, messages=messages: messages.append(message.text))
        page.on("pageerror", lambda error, messages=messages: messages.append(str(error)))
        page.goto(path.as_uri())
        expect(page.locator(".chart.js-plotly-plot .main-svg").first).to_be_visible()
        assert page.locator(".chart.js-plotly-plot").count() == len(specs(path)) > 8
        assert page.evaluate(AMISS) == [], (width, scheme)
        if width == 1280 and scheme == "light":
            tables_work(page)
        assert messages == []  # the policy in the page forbids every request, and a forbidden one is a console error
        context.close()


@needs_chromium
def test_in_a_browser_many_settings_have_their_axes_and_the_ranking_is_whole(
    make_study: MakeStudy, tmp_path: Path, browser: Browser
):
    """Labels that are turned for want of room are longer to the right than the last axis leaves."""
    study = make_study()
    names = [f"search.long_setting_{number}" for number in range(7)]
    for number in range(2):
        write_trial(study, number, params=dict.fromkeys(names, number + 0.001234))
    with browser.new_page(viewport={"width": 1280, "height": 900}) as page:
        page.goto(report([study], tmp_path / "r.html", lambda *_: {names[0]: (1.0, 1.0, 1.0)}).as_uri())
        labels = page.locator(".wide .xtick text")
        expect(labels.last).to_have_text("objective")
        assert all(label.bounding_box()["width"] > 0 for label in labels.all())
        assert page.locator(".scroll").first.evaluate("box => box.scrollWidth <= box.clientWidth")
