"""What is exported is the network that was trained, for every batch size, in torch and in onnxruntime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddarts_core.exports.export import (
    OPSET,
    TOLERANCE,
    Blueprint,
    Classifier,
    onnx_difference,
    read_safetensors,
    trained,
    untrained,
    write_onnx,
    write_program,
    write_safetensors,
)
from ddarts_core.exports.serving import Predictor, _load_pyfunc
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.loops import checkpoint
from ddarts_core.networks.network import Network
from ddarts_core.settings.config import ExperimentConfig, resolve

OPS = ("sep_conv_3x3", "dil_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "skip_connect")
CELL = Cell(tuple(Edge(2 + i % 2, i % 2, op) for i, op in enumerate(OPS)), (2, 3))
GENOTYPE = Genotype((CELL, CELL, CELL), reductions=(1,))


@pytest.fixture
def blueprint() -> Blueprint:
    config: ExperimentConfig = resolve({"retrain": {"channels": 4, "auxiliary_weight": 0.4, "drop_path": 0.2}})
    return Blueprint.of(GENOTYPE, config)


@pytest.fixture
def network(blueprint: Blueprint) -> Network:
    """With statistics and weights that are not those of the initialisation, so that logits are of order 1."""
    network = untrained(blueprint, seed=3)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.2, 1.5, generator=draws)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=draws), alpha=0.2)
    return network


def test_blueprint_survives_its_text(blueprint: Blueprint) -> None:
    named = replace(blueprint, info=replace(blueprint.info, classes=tuple("abcdefghij")))
    for one in (blueprint, named):
        assert Blueprint.from_json(one.to_json()) == one
    parts = json.loads(named.to_json())
    del parts["data"]["classes"]  # as it was written before classes had names
    assert Blueprint.from_json(json.dumps(parts)) == blueprint


def test_untrained_is_what_a_retrain_begins_with(blueprint: Blueprint) -> None:
    one, two, other = (untrained(blueprint, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_classifier_normalises_and_stays_in_evaluation(blueprint: Blueprint, network: Network) -> None:
    classifier = Classifier(network, blueprint.info)
    images = classifier.sample(3)
    assert images.shape == (3, 1, 8, 8)
    assert torch.equal(classifier(images), network((images - 0.3058) / torch.tensor(0.3759)))
    with pytest.raises(UserError, match="evaluation"):
        classifier.train()


def test_safetensors_alone_bring_the_network_back(blueprint: Blueprint, network: Network, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(network, blueprint, path)
    again, plan = read_safetensors(path)
    assert plan == blueprint and not again.training
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.state_dict().items())
    classifier = Classifier(network, blueprint.info)
    images = classifier.sample(2)
    for predictor in (Predictor(path), _load_pyfunc(str(path))):
        assert torch.equal(torch.from_numpy(predictor.predict(images.numpy())), classifier(images).detach())
    with pytest.raises(UserError, match=r"\[2, 3, 8, 8\].*\[batch, 1, 8, 8\]"):
        Predictor(path).predict(torch.zeros(2, 3, 8, 8).numpy())


def test_damaged_or_foreign_weights_are_one_sentence(blueprint: Blueprint, network: Network, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot read"):
        read_safetensors(path)
    with pytest.raises(UserError, match="cannot read"):
        read_safetensors(tmp_path / "missing.safetensors")
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not written by ddarts"):
        read_safetensors(path)


def test_weights_of_a_retrain_must_be_those_of_the_network(
    blueprint: Blueprint, network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    checkpoint.save(path, {"weights": network.state_dict(), "genotype": GENOTYPE.to_json()})
    assert torch.equal(trained(blueprint, path).classifier.weight, network.classifier.weight)
    other = Blueprint(Genotype((CELL, CELL), reductions=(1,)), blueprint.config, blueprint.info)
    with pytest.raises(UserError, match="another genotype"):
        trained(other, path)
    wider = Blueprint(GENOTYPE, blueprint.config.model_copy(update={"channels": 8}), blueprint.info)
    with pytest.raises(UserError, match="do not fit"):
        trained(wider, path)


def test_onnxruntime_gives_torchs_logits(blueprint: Blueprint, network: Network, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    classifier = Classifier(network, blueprint.info)
    logits = classifier(classifier.sample(3))
    assert logits.abs().max() > 0.05 and logits.std(0).max() > 1e-3  # the comparison below can fail
    path = tmp_path / "model.onnx"
    assert write_onnx(classifier, path) <= TOLERANCE
    assert [opset.version for opset in onnx.load(path).opset_import if opset.domain == ""] == [OPSET]
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]  # one file, weights inside
    assert onnx_difference(Classifier(untrained(blueprint, 0), blueprint.info), path) > TOLERANCE


def test_a_program_gives_the_same_logits_for_any_batch(blueprint: Blueprint, network: Network, tmp_path: Path) -> None:
    classifier = Classifier(network, blueprint.info)
    path = tmp_path / "model.pt2"
    write_program(classifier, path)
    program = torch.export.load(path).module()
    for count in (1, 2, 5):
        images = classifier.sample(count)
        torch.testing.assert_close(program(images), classifier(images))
