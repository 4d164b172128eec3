"""Networks as files that other tools open: safetensors, ONNX, and torch.export programs.

What is exported is a `Classifier`: it takes images of 0..1 and normalises them itself, so that whoever opens the file
needs no statistics of the data. ONNX and programs are checked against it when they are written.
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
    """All that building a network takes: genotype, settings of the training, facts of the data."""

    genotype: AnyGenotype
    config: RetrainConfig
    info: DataInfo

    @classmethod
    def of(cls, genotype: AnyGenotype, config: ExperimentConfig, info: DataInfo | None = None) -> Blueprint:
        """The network that `ddarts retrain` trains with this configuration; given their facts, without the data.

        Raises:
            UserError: see `data_info`.
        """
        return cls(genotype, config.retrain, info or data_info(config.data))

    def build(self) -> DerivedNetwork:
        """The network, initialised from torch's global generator.

        Raises:
            UserError: see `build_network`.
        """
        return build_network(self.config, self.genotype, self.info)

    def to_json(self) -> str:
        """The blueprint as text, for the metadata of a file."""
        parts = {
            "genotype": self.genotype.to_dict(),
            "retrain": self.config.model_dump(mode="json"),
            "data": self.info.to_dict(),
            **({"plugins": plugins.records()} if plugins.loaded() else {}),
        }
        return json.dumps(parts, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: str = "the network") -> Blueprint:
        """The blueprint that `to_json` wrote.

        Raises:
            UserError: its genotype has an operation of a plug-in that is not loaded; `where` names it in the message.
        """
        parts: dict[str, Any] = json.loads(text)
        with plugins.needed(parts.get("plugins", ()), where):
            genotype = AnyGenotype.from_text(json.dumps(parts["genotype"]))
        return cls(genotype, RetrainConfig.model_validate(parts["retrain"]), DataInfo.from_dict(parts["data"]))


class Classifier(nn.Module):
    """A network from images of 0..1 to logits: normalises by the data's statistics, in evaluation mode for good.

    Input: float32 [batch, channels, height, width]; output: float32 [batch, classes].
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
        """Only evaluation mode: what is exported must not change with the batch.

        Raises:
            UserError: training mode is asked for.
        """
        if mode:
            raise UserError("a classifier is for evaluation: train the network in it instead")
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def sample(self, count: int) -> Tensor:
        """Random images of the right shape, the same ones every time."""
        shape = (count, self.info.channels, self.info.image_size, self.info.image_size)
        return torch.rand(shape, generator=generator(0, "export", count))


# --- where weights come from ----------------------------------------------------------------------------------------


def untrained(blueprint: Blueprint, seed: int) -> DerivedNetwork:
    """The network as `ddarts retrain` with this seed begins."""
    with seeded_init(seed, "retrain", "network"):
        return blueprint.build()


def trained(blueprint: Blueprint, weights: str | Path) -> DerivedNetwork:
    """The network with the weights of the file `weights.pt` that `ddarts retrain` wrote.

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
    """Write the weights under their names in the network, with the blueprint as metadata."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_with(path, lambda name: save_file(tensors, name, {METADATA: blueprint.to_json()}))


def read_safetensors(path: str | Path) -> tuple[DerivedNetwork, Blueprint]:
    """The network in evaluation mode, and its blueprint, from a file of `write_safetensors` alone.

    Raises:
        UserError: the file is missing, damaged or another's.

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
    """Write an ONNX model of operator set `OPSET` with input `images`, output `logits` and any batch size.

    Its metadata have the names of the `classes` and, as JSON, how pictures are prepared.

    Returns:
        The largest difference of its logits in onnxruntime from torch's, on random images.

    Raises:
        UserError: packages for ONNX are missing.
        RuntimeError: the difference exceeds `TOLERANCE`; no file is left.
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
    """Largest absolute difference between the logits of an ONNX model in onnxruntime and of torch."""
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
    """Write a torch.export program (.pt2) with any batch size; `torch.export.load(path).module()` runs it."""
    program = torch.export.export(
        classifier, (classifier.sample(2),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    write_with(path, lambda name: torch.export.save(program, name))
