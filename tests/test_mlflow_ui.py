"""A study in MLflow's own pages, as `ddarts ui` serves them, looked at in a real browser."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ddarts_tuning.tracking.view import TAG
from playwright.sync_api import Browser, Page, expect

from tests.analysis.conftest import EPOCHS, record_of, write_study, write_trial
from tests.analysis.test_mlflow_source import log_study
from tests.browser import browser, needs_chromium

__all__ = ["browser"]  # a fixture

pytestmark = needs_chromium

expect.set_options(timeout=30_000)

#: The chosen columns; the first one sorts the table, best first.
COLUMNS = [
    *("derived/held_out/accuracy", "held_out/accuracy", "parameters", "macs"),
    *("state", "method", "ablation.weight", "search.lr", "search.w_zero_one"),
]


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `ddarts ui` prints for a study of three trials, whose view an older version did not write."""
    study = write_study(tmp_path_factory.mktemp("runs") / "toy")
    for number in range(3):
        write_trial(study, number)
    database = study / "mlflow.db"
    log_study(f"sqlite:///{database}", study)
    with sqlite3.connect(database) as connection:
        assert connection.execute("delete from experiment_tags where key = ?", (TAG,)).rowcount == 1
    command = [sys.executable, "-m", "ddarts_cli", "ui", str(study)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1\S+", line)))
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def runs(browser: Browser, link: str) -> Iterator[Page]:
    """The page behind the link, wide enough that its table draws all columns."""
    context = browser.new_context(viewport={"width": 2400, "height": 900})
    page = context.new_page()
    page.goto(link)
    expect(trial(page, 0)).to_be_visible()
    yield page
    context.close()


def trial(page: Page, number: int):
    return page.get_by_role("link", name=f"trial-{number:05d}")


def test_the_link_shows_the_chosen_columns_best_first(runs: Page) -> None:
    for name in COLUMNS:
        expect(runs.get_by_role("columnheader", name=name, exact=True).last).to_be_visible()
    heads = {
        text for text in runs.get_by_role("columnheader").all_inner_texts() if re.match(r"[a-z_]+[./]|[a-z]+$", text)
    }
    assert heads == set(COLUMNS)  # none of the hundred others
    names = runs.get_by_role("row").get_by_role("link")
    expect(names).to_have_text(["trial-00002", "trial-00001", "trial-00000", "toy"])
    expect(runs.get_by_text(re.compile("does not exist|Error loading"))).to_have_count(0)


def test_a_filter_by_a_setting_leaves_the_matching_trial(runs: Page) -> None:
    search = runs.get_by_placeholder("metrics.rmse")
    search.fill("params.`search.w_zero_one` = '1.0'")
    search.press("Enter")
    expect(runs.get_by_text("1 matching run")).to_be_visible()
    expect(trial(runs, 1)).to_be_visible()
    for number in (0, 2):
        expect(trial(runs, number)).to_have_count(0)


def test_two_chosen_trials_are_compared_and_both_curves_are_drawn(runs: Page) -> None:
    for number in (0, 2):
        runs.get_by_role("row").filter(has=trial(runs, number)).get_by_role("checkbox").check()
    runs.get_by_role("button", name="Compare").click()
    expect(runs.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    link = runs.locator("a[href*='/metric?']").filter(has_text=re.compile("^held_out/accuracy"))
    link.click()
    if "/metric?" not in runs.url:  # MLflow drew the list anew in this moment, and the click met nothing
        runs.wait_for_timeout(3000)
        if "/metric?" not in runs.url:
            link.click()
    plot = runs.locator(".js-plotly-plot")
    for number in (0, 2):
        expect(runs.get_by_text(f"trial-{number:05d} (held_out/accuracy)")).to_be_visible()
    expect(plot.locator(".scatterlayer .trace path.js-line").first).to_be_visible()
    traces = plot.evaluate("plot => plot.data.map(trace => [trace.name, {x: trace.x, y: trace.y}])")
    drawn = dict(traces)  # as it is and smoothed, which is the same
    assert set(drawn) == {"trial-00000", "trial-00002"}
    for number in (0, 2):
        curve = [record_of(number, epoch).metrics["held_out/accuracy"] for epoch in range(EPOCHS)]
        assert drawn[f"trial-{number:05d}"] == {"x": list(range(EPOCHS)), "y": pytest.approx(curve)}
