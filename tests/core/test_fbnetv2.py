"""FBNetV2 as a method: its space, its gates, its cost, and what a search by it finds, each derived a second time."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ddarts_core.data.sets import data_info
from ddarts_core.estimates.estimate import heaviest_genotype
from ddarts_core.extension.conformance import FEW_BLOCKS, IMAGES, small
from ddarts_core.genotypes.stage_space import StageSpace
from ddarts_core.ground.errors import UserError
from ddarts_core.methods import GATES, network_of
from ddarts_core.methods.parts import Progress
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.search.alpha_step import AlphaStep
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import ExperimentConfig, resolve
from ddarts_core.settings.found import data_of, facts_of

#: Widths that are near each other, so that a target has a genotype near it.
DENSE = [
    {"channels": [4, 6, 8, 10, 12]},
    {"channels": [6, 8, 10, 12], "middle": [8, 12, 16, 20, 24], "squeeze": [False, True], "stride": 2},
    {"channels": [8, 12, 16, 20], "kernel": [1]},
]


def tiny(*overrides: str) -> ExperimentConfig:
    return small("fbnetv2", *overrides)


def test_what_a_file_says_of_cells_is_for_its_other_methods() -> None:
    """A sweep over methods has one depth for all that have cells; a genotype of blocks has its own."""
    given = tiny("retrain.num_cells=3", "retrain.reductions=[1]").retrain
    assert (given.num_cells, given.reductions) == (None, None)
    assert small("darts", "retrain.num_cells=3").retrain.num_cells == 3


@pytest.mark.parametrize("target", [20_000, 25_000])
def test_a_search_reaches_the_multiply_adds_that_it_is_given(target: int, digits) -> None:
    """Counted by arithmetic on the genotype, whereas the term is of the gates; the space has 7,120 to 37,832."""
    config = tiny(
        f"search.options.blocks={json.dumps(DENSE)}",
        "search.options.start_temperature=1",
        "search.options.temperature_factor=0.6",
        f"search.cost={{target: {target}, weight: 20}}",
        "search.epochs=8",
        "data.num_train=110",
        "search.warmup_epochs=0",
        "alpha.lr=0.3",
        "alpha.schedule=cosine",
        "seed=1",
    )
    found = digits(config)
    *_, record = found.records()
    genotype = found.discretise().genotype
    assert retrain_cost(genotype, config, found.info).macs["A"] == pytest.approx(target, rel=0.05)
    assert record.metrics["alpha/expected-cost"] < 20 * math.log(1.05) ** 2


def test_gates_are_drawn_once_for_each_decision_and_fall_with_the_temperature() -> None:
    temperature = ("search.options.start_temperature=4", "search.options.temperature_factor=0.5")
    search = tiny(*temperature, f"search.options.blocks={json.dumps(DENSE)}").search
    gates, network = GATES["gumbel-annealed"](search), network_of(search)
    shape = network.shape(network.groups)
    assert shape.options == (5, 4, 5, 2, 4)
    alphas = torch.randn(shape.groups, 1, shape.operations, dtype=torch.float64)
    draw = Progress(3, 9, draw=lambda: torch.Generator().manual_seed(5))
    uniform = torch.rand(alphas.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found, mean = gates.gates({"alphas": alphas}, draw), gates.gates({"alphas": alphas}, Progress(3, 9))
    for row, number in enumerate(shape.options):
        noisy = alphas[row, 0, :number] - torch.log(-torch.log(uniform[row, 0, :number]))
        assert torch.allclose(found[row, 0, :number], torch.softmax(noisy / 0.5, 0))  # 4 x 0.5^3
        assert torch.allclose(mean[row, 0, :number], torch.softmax(alphas[row, 0, :number] / 0.5, 0))
        assert not found[row, 0, number:].any() and not mean[row, 0, number:].any()


@pytest.mark.parametrize("target", [None, 5000.0])
def test_the_term_is_of_the_expected_cost_of_gates_without_noise(target: float | None) -> None:
    cost = f"search.cost={{target: {target or 'null'}, weight: 3, of: parameters}}"
    config = tiny(cost)
    network = network_of(config.search)
    net = network.build(IMAGES)
    step = AlphaStep(net, config)
    choice = [len(decision.options) - 1 for decision in network.decisions]
    alphas = torch.full((network.groups, 1, max(network.shape(0).options)), -1e4)
    alphas[range(network.groups), 0, choice] = 1e4
    counted = retrain_cost(network.space(8).genotype(choice), config, IMAGES).parameters
    drawn = Progress(draw=lambda: torch.Generator().manual_seed(1))
    found = step.architecture.values({"alphas": alphas}, drawn)["expected-cost"]
    expected = math.log(counted) if target is None else math.log(counted / target) ** 2
    assert found.tolist() == pytest.approx([3 * expected] * network.groups, rel=1e-5)
    soft = {"alphas": torch.randn(alphas.shape)}
    of_draws = [Progress(draw=lambda seed=seed: torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    first, second = (step.architecture.values(soft, progress)["expected-cost"] for progress in of_draws)
    assert torch.equal(first, second)
    pulled = [step.architecture.pull(soft, progress)["alphas"] for progress in of_draws]
    assert torch.equal(*pulled) and pulled[0].any()


def test_the_weight_of_the_cost_is_that_of_fbnets_product() -> None:
    """Its gradient by log(cost), as a share of that by L_CE, where `uncertain` says."""
    entropy = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    logarithm = torch.tensor(3e8, dtype=torch.float64).log().requires_grad_()
    by_entropy, by_logarithm = torch.autograd.grad(entropy * 0.2 * logarithm**0.6, (entropy, logarithm))
    cost = resolve({"method": "fbnetv2"}).search.cost
    assert cost is not None and cost.weight == round(float(by_logarithm / by_entropy), 2)


def test_the_space_for_288_pixels() -> None:
    """Each published width is in it, and the whole chain halves the images five times."""
    space: StageSpace = network_of(resolve({"method": "fbnetv2"}).search).space(288)
    widths = [block.channels for block in space.blocks]
    assert len(space.blocks) == 2 + 3 + 3 + 3 + 4 + 4 + 1 and space.hidden == 1984
    assert [width[-1] for width in widths] == [16, 16, *[28] * 3, *[40] * 3, *[96] * 3, *[128] * 4, *[216] * 4, 1344]
    assert sum(block.stride == 2 for block in space.blocks) == 5
    assert space.blocks[3].middle == (24, 40, 64, 88, 104, 128)  # 28 times 0.75, 1.5, ... to multiples of 8
    assert space.steps == (1, 2) and space.decisions[0].options == (1, 2)


def test_the_resolution_that_a_search_finds_is_that_of_the_training() -> None:
    config = tiny("data.image_size=16", "search.options.resolutions=[1, 2]")
    search = build_search(config)
    search._parameters["alphas"][0].data[0, :2] = torch.tensor([0.0, 1.0])
    genotype = search.discretise().genotype
    assert genotype.image_size == data_of(config, genotype).image_size == 8
    counted = retrain_cost(genotype, config, search.info)
    assert counted == retrain_cost(genotype, config, facts_of(search.info, config, genotype))
    whole = retrain_cost(genotype, resolve({}), search.info)  # of a search that does not choose the size
    assert whole.parameters == counted.parameters and whole.macs["A"] > 3 * counted.macs["A"]


def test_the_heaviest_genotype_bounds_all_and_the_network_holds_it() -> None:
    config = tiny()
    info = data_info(config.data)
    network = network_of(config.search)
    heaviest = retrain_cost(heaviest_genotype(config, info), config, info)
    every = [network.space(8).genotype(choice) for choice in torch.cartesian_prod(*_choices(network)).tolist()]
    costs = [retrain_cost(genotype, config, info) for genotype in every]
    assert heaviest.parameters == max(cost.parameters for cost in costs)
    assert heaviest.macs["A"] == max(cost.macs["A"] for cost in costs)
    assert heaviest.parameters == sum(weight.numel() for weight in network.build(info).parameters())


def _choices(network) -> list[torch.Tensor]:
    return [torch.arange(len(decision.options)) for decision in network.decisions]


def test_records_have_the_options_of_each_decision_alone(digits) -> None:
    search = digits(tiny("search.warmup_epochs=0", "search.epochs=1", f"search.options.blocks={json.dumps(DENSE)}"))
    record = next(search.records())
    numbers = [len(decision.options) for decision in network_of(search.config.search).decisions]
    for recorded in (record.alphas, record.gates):
        assert [[len(row) for row in group] for group in recorded] == [[number] for number in numbers]
    assert all(sum(row) == pytest.approx(1) for (row,) in record.gates)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ablation.loss=centered", "no cells to remove"),
        ("search.edge=sampled", "search.edge is for cells"),
        ("search.freezing=gradient-direction", "search.freezing is for cells"),
        ("search.stages=cycles", "search.stages cycles"),
        ("search.options.blocks=tiny", "unknown space of blocks 'tiny': choose one of mobile, small"),
        ("search.options.blocks=[{channels: [8], stride: 3}]", "stride"),
        ("search.options.blocks=[{channels: [8]}]", "nothing to decide"),
        ("search.options.blocks=[{channels: [8, 8]}]", "search.options of search.network masked: channels"),
        ("search.regularisers={beta-decay: {weight: 1}}", "search.regularisers is for cells"),
        ("search.cost={target: 0}", "target"),
    ],
)
def test_what_has_no_meaning_is_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny(override)


def test_what_is_of_cells_or_of_blocks_alone() -> None:
    of_cells = {"ablation": {"loss": "none"}, "discretise": {"rule": "darts"}}
    with pytest.raises(UserError, match=r"rows of different lengths: use search.gates gumbel-annealed"):
        resolve({**of_cells, "search": {"network": "masked", "gates": "softmax", "w_zero_one": 0}})
    with pytest.raises(UserError, match=r"search.network cells does not know its macs"):
        resolve({"method": "darts"}, ["search.cost={target: 1000}"])
    with pytest.raises(UserError, match=r"expected-cost is set by search.cost"):
        resolve({"method": "darts"}, ["search.regularisers={expected-cost: {weight: 1}}"])


def test_few_pixels_are_refused_where_the_resolution_is_set() -> None:
    with pytest.raises(UserError, match=r"search.options of search.network masked: step 2 leaves images of 4 pixels"):
        build_search(tiny("search.options.resolutions=[1, 2]"))


def test_the_laws_look_at_every_kind_of_decision() -> None:
    fields = {decision.field for decision in network_of(tiny().search).decisions}
    assert fields == {"channels", "middle", "kernel", "squeeze", "activation"} and len(FEW_BLOCKS) == 3
