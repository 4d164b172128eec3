"""Shapley values of a trained supernet's cells: the axioms hold, and leave-one-out values are eq. 6."""

from __future__ import annotations

import pytest
import torch

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.records import EpochRecord
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import resolve
from ddarts_core.supernets import shapley
from ddarts_core.supernets.coalitions import coalition_worth, shapley_values
from ddarts_core.supernets.contributions import ablated_losses
from ddarts_core.supernets.supernet import batch_statistics
from tests.core.conftest import TINY


@pytest.fixture(scope="module")
def trained():
    """A search that ran to its end, and a batch that trained nothing."""
    search = build_search(resolve(TINY, ["search.num_cells=4"]))
    list(search.records())
    return search, next(search._batches(search.splits.held_out, "test", 0, 0))


@pytest.mark.parametrize("removal", ["identity", "zero", "uniform"])
def test_trained_supernet(trained, removal):
    search, (images, labels) = trained
    net, gates = search.net, search.gates
    worth = coalition_worth(net, images, labels, gates, removal)
    everyone = frozenset(range(4))
    found = shapley.exact(4, worth)
    assert sum(found.values) == pytest.approx(worth(everyone) - worth(frozenset()), abs=1e-6)
    with torch.no_grad(), batch_statistics(net):
        outputs = net.outputs(images, gates)
        losses = ablated_losses(net, outputs, gates, labels, range(4), removal, [])
    leave_one_out = [worth(everyone) - worth(everyone - {i}) for i in range(4)]
    assert leave_one_out == pytest.approx([float(loss) + worth(everyone) for loss in losses], abs=1e-6)
    estimate = shapley.sampled(4, worth, permutations=30, seed=1)
    assert sum(estimate.values) == pytest.approx(sum(found.values), abs=1e-6)
    for value, error, true in zip(estimate.values, estimate.standard_errors, found.values, strict=True):
        assert abs(value - true) <= 5 * error + 1e-6


def test_a_cell_that_removal_does_not_change_is_a_null_player(trained):
    search, (images, labels) = trained
    gates = search.gates.clone()
    gates[2] = 0.5
    worth = coalition_worth(search.net, images, labels, gates, "uniform")
    assert shapley.exact(4, worth).values[2] == pytest.approx(0, abs=1e-6)


def test_the_last_record_has_shapley_values_and_the_search_is_the_same(trained):
    search, _ = trained
    *before, last = build_search(resolve(TINY, ["search.num_cells=4", "ablation.shapley_permutations=4"])).records()
    *plain_before, plain = build_search(resolve(TINY, ["search.num_cells=4"])).records()
    assert not any(record.shapley for record in (*before, plain))
    assert before == plain_before and last.alphas == plain.alphas and last.metrics == plain.metrics
    images, labels = next(
        search.splits.held_out.batches(24, generator=None, device=search.device, info=search.info, drop_last=False)
    )
    worth = coalition_worth(search.net, images, labels, search.gates)
    # 2^4 coalitions are fewer than 4 orders of 4 cells have networks, or as many: exact, with the sign of a loss
    assert last.shapley == pytest.approx([-value for value in shapley.exact(4, worth).values], abs=1e-6)
    assert last.shapley_errors == (0.0,) * 4
    sampled = shapley_values(search.net, images, labels, search.gates, "identity", permutations=3, seed=0)
    assert any(error > 0 for error in sampled.standard_errors)
    assert sum(sampled.values) == pytest.approx(sum(last.shapley), abs=1e-6)
    assert EpochRecord.from_dict(last.to_dict()) == last and "shapley" not in plain.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["ablation.shapley_permutations=1"], "0, or 2 or more"),
        (["ablation.shapley_permutations=4", "ablation.removal=random"], "identity, zero or uniform"),
    ],
)
def test_settings_that_make_no_game_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        resolve(TINY, settings)
