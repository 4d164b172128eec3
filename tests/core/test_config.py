"""Files and overrides that hold nonsense: one sentence that says what, where, and which values are allowed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.nested import override, parse_override, set_path
from ddarts_core.settings.config import ExperimentConfig, load_experiment, resolve
from ddarts_core.settings.hashing import config_hash
from ddarts_core.settings.search_settings import Removal, SearchConfig

FILES = {
    "search: {lr: 0.1}\nseed: 1\nsearch: {epochs: 3}": r"key 'search' is given twice \(line 1 and line 3\): keep",
    "search:\n  lr: 0.1\n  lr: 0.2": r"the key 'lr' is given twice \(line 2 and line 3\)",
    "name: 0x_": "is not the number that it looks like: put text into quotes",
    "seed: !!int many": "is not the number that it looks like",
    "name: " + "[" * 3000: "nested too deeply",
    "method: [a]": r"method: unknown method \['a'\]: choose one of .*fairdarts",
    "method: null": "method: unknown method None: choose one of",
    "retrain: {recipe: [1]}": r"retrain.recipe: unknown recipe \[1\]: choose one of cifar, ",
    "data: {name: nope}": "data.name: unknown data set 'nope': choose one of arrays, cifar10, .*imagenet",
    "search.epochs: 3": r"'search.epochs' is one key: write it as a key of its group, search: {epochs: ...}",
    "search: {alpha.lr: 3}": "'alpha.lr' is one key",
    "search: {epoch: 3}": "unknown setting 'search.epoch'; did you mean 'search.epochs'",
    "search: 3": r"search: should be a group of settings \(key: value\) \(got 3\)",
    "search: {reductions: 3}": r"search.reductions: should be a list \(got 3\)",
    "search: {device: gpu}": "search.device: should be auto, cpu, cuda or cuda:N",
    "retrain: {reductions: half}": "retrain.reductions: should be 'thirds' or 'genotype' or a list",
    "retrain: {reductions: [a]}": "retrain.reductions.0: should be a valid integer",
    "alpha: {betas: [0.9]}": "alpha.betas.1: field required",
    "search: {sharing: normal_reduce, reductions: []}": "search: sharing normal_reduce needs cells of both kinds: of",
    "search: {reductions: [3, 6]}\nretrain: {num_cells: 14}": r"retrain.num_cells 14 .*search.reductions \[3, 6\] out",
    "search: {w_zero_one: 5.0, regularisers: {zero-one: {weight: 2.0}}}": "w_zero_one 5 and .*-one both weigh the zero",
    "search: {regularisers: {zero-one: {weight: 8.0, schedule: rising}}}": "w_zero_one 1 and .* also where the method",
    "search: {regularisers: {ablation-paper: {}}}\nablation: {loss: none}": "loss paper, but .* is none: leave",
    "search: {regularisers: {ablation-paper: {weight: 2}}}\nablation: {weight: 1}": "weight 2, but .* is 1: leave",
    "search: {regularisers: {ablation-paper: {}, ablation-credit: {}}}": "names ablation-paper and ablation-credit: a",
    "search: {regularisers: {ablation-paper: {wait: 1}}}": "ablation-paper: unknown setting 'wait'",
    "search: {regularisers: {ablation-paper: 3}}": "ablation-paper: should be a group of settings",
    "search: {regularisers: {ablation-papr: {}}}": "unknown ablation loss .papr.: choose one of centered",
    "ablation: {loss: [1]}": "ablation.loss: should be a valid string",
    "ablation: {options: {a: 1}}": "ablation: unknown option 'a': the parts in use have none",
    "name: a b": "name: should be up to 100 letters, digits and",
    "seed: " + "1" * 400: r"seed: should be less than .*1\.\.\.\)$",
}


@pytest.mark.parametrize("text", FILES, ids=lambda text: re.sub(r"\W+", "-", text)[:30])
def test_a_wrong_file_is_one_sentence_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and "\n" not in sentence and len(sentence) < 400
    assert re.search(FILES[text], sentence), sentence


def test_an_ablation_loss_among_the_terms_is_the_one_of_its_group() -> None:
    """So is its hash, over a preset that has another one; what the term does not say, the group says."""
    term = {"ablation-paper": {"weight": 2.0, "schedule": "rising"}, "beta-decay": {"weight": 3.0}}
    written = {"method": "darts", "search": {"regularisers": term}, "ablation": {"every": 2}}
    kept = {
        "method": "darts",
        "search": {"regularisers": {"beta-decay": {"weight": 3.0}}},
        "ablation": {"loss": "paper", "weight": 2.0, "schedule": "rising", "every": 2},
    }
    assert resolve(written) == resolve(kept) and config_hash(resolve(written)) == config_hash(resolve(kept))
    assert (
        ExperimentConfig.model_validate({"search": {"regularisers": {"ablation-paper": {}}}}).ablation.loss == "paper"
    )
    short = resolve({}, ["search.regularisers.ablation-credit={}"])
    assert short == resolve({}, ["ablation.loss=credit"]) and short.search.regularisers == {}
    with pytest.raises(ValueError, match="ablation-credit is set by ablation"):
        SearchConfig.model_validate({"regularisers": {"ablation-credit": {}}})


@pytest.mark.parametrize("text", ["name=" + "[" * 3000, "x." * 3000 + "y=1", "search={lr: 1, lr: 2}", "name=0b_"])
def test_a_wrong_override_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError):
        resolve({}, [text])


def test_what_looks_like_a_date_is_text() -> None:
    assert resolve({}, ["name=2020-13-45", "data.root=2024-01-15"]).name == "2020-13-45"


@pytest.mark.parametrize("value", ["2024", "2024-01-15", "yes", "", "a: b", 3, None])
def test_an_override_of_a_value_is_that_value(value: object) -> None:
    assert parse_override(override("data.root", value)) == ("data.root", value)


def test_the_keys_of_a_space_have_dots() -> None:
    space = {"space": {"search.lr": {"low": 1}}}
    assert set_path(space, "space.search.lr.low", 2) == {"space": {"search.lr": {"low": 2}}}
    assert set_path(space, "space.alpha.lr", {})["space"] == {"search.lr": {"low": 1}, "alpha.lr": {}}
    assert set_path(space, "space.search.lr.when.seed", [1])["space"]["search.lr"]["when"] == {"seed": [1]}
    assert space == {"space": {"search.lr": {"low": 1}}}


def _accepted(settings):
    try:
        resolve(settings)
    except UserError:
        return False
    return True


def test_the_table_of_removals_says_what_is_accepted():
    """docs/ablation.md against the rules, row by row."""
    page = (Path(__file__).parents[2] / "docs" / "ablation.md").read_text()
    table = page.partition("| removal | gates |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" *`") for cell in line.split("|")[1:4]] for line in table]
    assert {removal for removal, _, _ in rows} == set(get_args(Removal))
    softmax = {"search": {"gates": "softmax", "w_zero_one": 0.0}, "discretise": {"rule": "darts"}}
    for removal, gates, shapley in rows:
        ablation = {"ablation": {"removal": removal}}
        assert gates in ("sigmoid", "sigmoid, softmax") and shapley in ("yes", "no")
        assert _accepted(ablation)
        assert _accepted(softmax | ablation) == ("softmax" in gates), removal
        asked = {"ablation": {"removal": removal, "shapley_permutations": 2}}
        assert _accepted(asked) == (shapley == "yes"), removal


def test_a_setting_goes_by_its_earlier_name_too() -> None:
    """Stored with every setting, as a study has it, the name of then outweighs the preset's setting of today."""
    now = resolve({"method": "darts"})
    then = now.model_dump(mode="json")
    then["search"]["relaxation"] = then["search"].pop("gates")
    assert resolve(then) == now and config_hash(resolve(then)) == config_hash(now)
    assert resolve({"method": "darts", "search": {"relaxation": "softmax"}}).search.gates == "softmax"
