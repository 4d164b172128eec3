"""Tables of a metric by a setting over repeated runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ddarts_analysis.collect import load
from ddarts_analysis.tables import UNUSED, by_setting, markdown, varying

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import write_jsonl
from ddarts_core.settings.config import resolve
from tests.analysis.conftest import record_of, write_trial


def test_means_by_setting(make_study):
    study = make_study(*["COMPLETED"] * 6)
    table = by_setting(load(study), "search.w_zero_one", "held_out/accuracy")
    # Trials n and n + 3 share w_zero_one = n % 3; the last epoch's accuracy is 0.6 + 0.01 n.
    assert table["search.w_zero_one"].tolist() == [0.0, 1.0, 2.0]
    assert table["trials"].tolist() == [2, 2, 2]  # of two methods
    assert table["mean"].tolist() == pytest.approx([0.615, 0.625, 0.635])
    assert table["difference"].tolist() == pytest.approx([0.0, 0.01, 0.02])
    assert (table["low"] < table["mean"]).all() and (table["mean"] < table["high"]).all()


def test_any_value_can_be_the_first_row(make_study):
    frames = load(make_study(*["COMPLETED"] * 6))
    plain, other = (by_setting(frames, "method", "derived_accuracy", first=first) for first in (None, "fairdarts"))
    assert list(plain["method"]) == ["ddarts", "fairdarts"] and list(other["method"]) == ["fairdarts", "ddarts"]
    assert other["difference"][0] == 0 and other["difference"][1] == pytest.approx(-plain["difference"][1])
    with pytest.raises(UserError, match=r"unknown value of method 'dots'"):
        by_setting(frames, "method", "derived_accuracy", first="dots")


def test_which_epoch_counts(make_study):
    study = make_study(*["COMPLETED"] * 2)
    lowest = by_setting(load(study), "method", "held_out/accuracy", "lowest")
    assert lowest.set_index("method")["mean"].to_dict() == pytest.approx({"ddarts": 0.4, "fairdarts": 0.41})


def test_a_method_is_counted_by_its_last_stage_and_one_that_trains_no_alphas_by_its_weights(make_study):
    """DOTS ends in phase `joint`; random search has no phase but `warmup`."""
    study = make_study(*["COMPLETED"] * 2)
    stages = {0: ("warmup", "search", "joint"), 1: ("warmup", "warmup", "warmup")}
    for number, phases in stages.items():
        records = [replace(record_of(number, epoch), phase=phase) for epoch, phase in enumerate(phases)]
        again = replace(record_of(number, 2), epoch=0, phase="retrain", metrics={"held_out/accuracy": 1.0})
        write_jsonl(study / f"trials/{number:05d}/records.jsonl", [*records, again])
    tables = {how: by_setting(load(study), "method", "held_out/accuracy", how) for how in ("last", "lowest")}
    assert tables["last"]["mean"].tolist() == pytest.approx([0.6, 0.61])
    assert tables["lowest"]["mean"].tolist() == pytest.approx([0.5, 0.41])


def test_an_objective_goes_by_the_name_that_status_and_export_use(make_study):
    frames = load(make_study(*["COMPLETED"] * 6))
    table = by_setting(frames, "method", "derived/held_out/accuracy")
    assert table["mean"].tolist() == pytest.approx([0.56, 0.59])  # 0.5 + 0.03 n
    assert table.equals(by_setting(frames, "method", "derived_accuracy"))


def test_markdown_has_a_row_per_value_and_no_bold(make_study):
    text = markdown(by_setting(load(make_study(*["COMPLETED"] * 6)), "method", "derived_accuracy"), "derived_accuracy")
    assert len(text.splitlines()) == 4
    assert "| ddarts | 3 |" in text and "**" not in text


def test_trials_that_differ_in_more_than_the_seed_are_not_called_seeds(make_study):
    """Trials n of the study have method n % 2, and two weights by n % 3."""
    frames = load(make_study(*["COMPLETED"] * 6))
    assert varying(frames, "seed") == []
    assert by_setting(frames, "seed", "derived_accuracy").columns[1] == "seeds"
    varied = varying(frames, "method")
    assert varied == ["ablation.weight", "search.w_zero_one"]
    lines = markdown(by_setting(frames, "method", "derived_accuracy"), "derived_accuracy", varied).splitlines()
    assert lines[0].startswith("| method | trials | derived_accuracy |")
    assert lines[-1] == "The trials of a row differ in more than their seeds: ablation.weight, search.w_zero_one"
    many = markdown(by_setting(frames, "method", "derived_accuracy"), "derived_accuracy", list("abcdefgh"))
    assert many.endswith(": a, b, c, d, e, f, ...")


def test_repeats_elsewhere_with_other_seeds_are_seeds(make_study):
    """Where data, runs and devices are says nothing about a result, and the setting of the rows may differ."""
    study = make_study()
    for number in range(4):
        config = resolve(
            {
                "name": f"n{number}",
                "seed": number,
                "data": {"root": f"/data/{number}"},
                "search": {"channels": 4 * (1 + number // 2)},
            }
        )
        write_trial(study, number, config=config.model_dump(mode="json"))
    table = by_setting(load(study), "search.channels", "derived_accuracy")
    assert table["seeds"].tolist() == [2, 2] and varying(load(study), "search.channels") == []


def test_a_setting_that_changes_nothing_is_no_value(make_study):
    """The weight of an ablation loss that is only measured; in a row of other settings it does not differ."""
    study = make_study()
    losses = [("centered", 1.0), ("centered", 1.0), ("monitor", 0.5), ("monitor", 2.0)]
    for number, (loss, weight) in enumerate(losses):
        config = resolve({"seed": number % 2, "ablation": {"loss": loss, "weight": weight}})
        write_trial(study, number, config=config.model_dump(mode="json"))
    frames = load(study)
    table = by_setting(frames, "ablation.weight", "derived_accuracy")
    assert table["ablation.weight"].tolist() == [1.0, UNUSED] and table.columns[1] == "seeds"
    assert varying(frames, "ablation.loss") == []


def test_a_single_seed_has_no_interval(make_study):
    text = markdown(by_setting(load(make_study(*["COMPLETED"] * 2)), "method", "derived_accuracy"), "derived_accuracy")
    assert text.splitlines()[2:] == [
        "| ddarts | 1 | 0.5000 | – | – | – | – |",
        "| fairdarts | 1 | 0.5300 | – | +0.0300 | – | fewer than 3 runs |",
    ]


def test_mistakes_are_sentences(make_study, tmp_path):
    frames = load(make_study(*["COMPLETED"] * 2))
    with pytest.raises(UserError, match=r"no trial has a setting 'search.nothing'"):
        by_setting(frames, "search.nothing", "held_out/accuracy")
    with pytest.raises(UserError, match=r"'search' is a group of settings: give one of them, such as search\.\w+"):
        by_setting(frames, "search", "held_out/accuracy")
    with pytest.raises(UserError, match=r"unknown metric 'x/y'.*derived/held_out/accuracy.*, held_out/accuracy"):
        by_setting(frames, "method", "x/y")
    failed = make_study("FAILED", name="failed")
    with pytest.raises(UserError, match=r"no trial is completed"):
        by_setting(load(failed), "method", "held_out/accuracy")
