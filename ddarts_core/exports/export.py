"""Writes networks as files that other tools open: safetensors, ONNX, and torch.export programs.

An ONNX model or a program is a `Classifier`: it takes images of 0..1 and normalises them itself. So a user of the file
needs no statistics of the data. An ONNX model is compared with its `Classifier` when it is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.images import DataInfo
from ..data.sets import data_info
from ..genotypes.genotype import AnyGenotype
from ..ground import plugins
from ..ground.errors import UserError
from ..ground.files import write_with
from ..loops import checkpoint
from ..networks.building import build_network
from ..networks.derived import DerivedNetwork
from ..settings.config import ExperimentConfig
from ..settings.found import facts_of
from ..settings.retrain_settings import RetrainConfig
from ..tensors.seeding import generator, seeded_init
from .preprocessing import KEY, Preprocessing

#: ONNX operator set of exported models, and the difference of logits that is allowed between onnxruntime and torch.
OPSET = 18
TOLERANCE = 1e-4

#: Key of the metadata in a safetensors file that says how to build the network.
METADATA = "ddarts"


@dataclass(frozen=True)
class Blueprint:
    """Everything that is needed to build a network.

    Attributes:
        genotype: the genotype of the network, before it is derived deeper.
        config: the settings of its training.
        info: the facts of its data.
    """

    genotype: AnyGenotype
    config: RetrainConfig
    info: DataInfo

    @classmethod
    def of(cls, genotype: AnyGenotype, config: ExperimentConfig, info: DataInfo | None = None) -> Blueprint:
        """Make the blueprint of the network that `ddarts retrain` trains with this configuration.

        Args:
            genotype: the genotype of the network.
            config: the settings of the experiment.
            info: the facts of the data. None: they are asked of the data, which must then be there.

        Raises:
            UserError: see `data_info`.
        """
        return cls(genotype, config.retrain, facts_of(info or data_info(config.data), config, genotype))

    def build(self) -> DerivedNetwork:
        """Build the network. Its weights are drawn from torch's global generator.

        Raises:
            UserError: see `build_network`.
        """
        return build_network(self.config, self.genotype, self.info)

    def to_json(self) -> str:
        """Return the blueprint as JSON text, for the metadata of a file."""
        parts = {
            "genotype": self.genotype.to_dict(),
            "retrain": self.config.model_dump(mode="json"),
            "data": self.info.to_dict(),
            **({"plugins": plugins.records()} if plugins.loaded() else {}),
        }
        return json.dumps(parts, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: str = "the network") -> Blueprint:
        """Make the blueprint from the text that `to_json` wrote.

        Args:
            text: the JSON text.
            where: the name of the network or its file, for messages.

        Raises:
            UserError: the genotype has an operation of a plug-in that is not loaded.
        """
        parts: dict[str, Any] = json.loads(text)
        with plugins.needed(parts.get("plugins", ()), where):
            genotype = AnyGenotype.from_text(json.dumps(parts["genotype"]))
        return cls(genotype, RetrainConfig.model_validate(parts["retrain"]), DataInfo.from_dict(parts["data"]))


class Classifier(nn.Module):
    """A network that takes images of 0..1, normalises them by the data's statistics, and returns logits.

    It always stays in evaluation mode. Input: float32 [batch, channels, height, width]; output: float32
    [batch, classes].

    Args:
        network: the network, which takes normalised images.
        info: the facts of the data, with the statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: DerivedNetwork, info: DataInfo) -> None:
        super().__init__()
        self.network = network.to("cpu").eval()
        self.info = info
        self.register_buffer("mean", torch.tensor(info.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(info.std)[:, None, None], persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Classifier:
        """Stay in evaluation mode: the output of an exported network must not depend on the rest of a batch.

        Raises:
            UserError: training mode is asked for.
        """
        if mode:
            raise UserError("a classifier is for evaluation: train the network in it instead")
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [batch, classes] of images [batch, channels, height, width] of 0..1."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def sample(self, count: int) -> Tensor:
        """Return `count` random images of the right shape. They are the same at every call."""
        shape = (count, self.info.channels, self.info.image_size, self.info.image_size)
        return torch.rand(shape, generator=generator(0, "export", count))


# --- where weights come from ----------------------------------------------------------------------------------------


def untrained(blueprint: Blueprint, seed: int) -> DerivedNetwork:
    """Return the network with the weights with which `ddarts retrain` begins at this seed."""
    with seeded_init(seed, "retrain", "network"):
        return blueprint.build()


def trained(blueprint: Blueprint, weights: str | Path) -> DerivedNetwork:
    """Return the network with the weights of a file `weights.pt` that `ddarts retrain` wrote.

    Raises:
        UserError: the file is missing or damaged, or its weights are those of another network.
    """
    state = checkpoint.load(weights)
    if AnyGenotype.from_text(str(state.get("genotype"))) != blueprint.genotype:
        raise UserError(f"{str(weights)!r} has the weights of another genotype than {blueprint.genotype.hash}")
    return _filled(blueprint, state["weights"], weights)


def _filled(blueprint: Blueprint, tensors: Mapping[str, Tensor], source: str | Path) -> DerivedNetwork:
    network = blueprint.build()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"the weights in {str(source)!r} do not fit the network of its settings: {reason}") from error
    return network.eval()


# --- safetensors ----------------------------------------------------------------------------------------------------


def write_safetensors(network: DerivedNetwork, blueprint: Blueprint, path: str | Path) -> None:
    """Write the weights under the names that they have in the network, and the blueprint as metadata."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_with(path, lambda name: save_file(tensors, name, {METADATA: blueprint.to_json()}))


def read_safetensors(path: str | Path) -> tuple[DerivedNetwork, Blueprint]:
    """Read a network in evaluation mode, and its blueprint, from a file of `write_safetensors` alone.

    Raises:
        UserError: the file is missing or damaged, or ddarts has not written it.

    Example:
        network, blueprint = read_safetensors("01_0123456789ab/weights.safetensors")
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {str(path)!r} as safetensors: {error}") from error
    if METADATA not in metadata:
        raise UserError(f"{str(path)!r} was not written by ddarts: its metadata do not say which network it is of")
    blueprint = Blueprint.from_json(metadata[METADATA], str(path))
    return _filled(blueprint, tensors, path), blueprint


# --- ONNX and programs ----------------------------------------------------------------------------------------------


def write_onnx(classifier: Classifier, path: str | Path) -> float:
    """Write an ONNX model of operator set `OPSET`, with input `images` and output `logits`, for any batch size.

    The metadata of the model have the names of the `classes` and, as JSON, how pictures are prepared.

    Returns:
        The largest difference between the logits of onnxruntime and of torch on random images.

    Raises:
        UserError: packages for ONNX are missing.
        RuntimeError: the difference exceeds `TOLERANCE`. No file is left then.
    """
    try:
        import onnx  # noqa: F401  # torch's exporter needs it and onnxscript
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs packages that are not here ({error}): pip install 'ddarts[onnx]'") from error
    difference = 0.0

    def write(name: str) -> None:
        nonlocal difference
        torch.onnx.export(
            classifier,
            (classifier.sample(2),),
            name,
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        _describe(name, Preprocessing.of(classifier.info))
        difference = onnx_difference(classifier, name)
        if difference > TOLERANCE:
            raise RuntimeError(f"onnxruntime's logits differ from torch's by {difference:g}, more than {TOLERANCE:g}")

    write_with(path, write)
    return difference


def _describe(path: str, setup: Preprocessing) -> None:
    """Put the names of the classes, and how pictures are prepared, into the metadata of an ONNX model."""
    import onnx

    model = onnx.load(path)
    found = {KEY: json.dumps(setup.to_dict(), ensure_ascii=False), "classes": json.dumps(list(setup.classes))}
    onnx.helper.set_model_props(model, found)
    onnx.save(model, path)


def onnx_difference(classifier: Classifier, path: str | Path) -> float:
    """Return the largest absolute difference between the logits of an ONNX model in onnxruntime and of torch.

    Both get the same random images.
    """
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (1, 3):
        images = classifier.sample(count)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            worst = max(worst, float((torch.from_numpy(logits) - classifier(images)).abs().max()))
    return worst


def write_program(classifier: Classifier, path: str | Path) -> None:
    """Write a torch.export program (.pt2) for any batch size. `torch.export.load(path).module()` can be called."""
    program = torch.export.export(
        classifier, (classifier.sample(2),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    write_with(path, lambda name: torch.export.save(program, name))
