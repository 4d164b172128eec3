"""Models beside an exported genotype: weights, ONNX, programs, and what the card says of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddarts_analysis.export import Models

from ddarts_cli import usages
from ddarts_cli.folders import RetrainFolder
from ddarts_core.data.sets import data_info
from ddarts_core.datasets.facts import DataInfo, read_info
from ddarts_core.exports.export import (
    OPSET,
    Blueprint,
    Classifier,
    trained,
    untrained,
    write_onnx,
    write_program,
    write_safetensors,
)
from ddarts_core.exports.preprocessing import FILE, Preprocessing, write
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.settings.config import ExperimentConfig, load_experiment, resolve
from ddarts_core.studies.shell import ddarts

#: Keys of a stored configuration that only a sweep or a tracker has.
_EXPERIMENT = set(ExperimentConfig.model_fields)


@dataclass(frozen=True)
class Weights:
    """Trained weights with the settings they belong to: of a retrain's first seed, or of a trial's own short training.

    Attributes:
        path: the path of the file.
        seed: the seed of the training.
        config: the configuration of the experiment.
        info: facts of the data.
        accuracies: each seed of a retrain with its accuracy on the test images; empty for a trial.
        short: the number of epochs of a trial's own short training; None for a retrain.
    """

    path: Path
    seed: int
    config: ExperimentConfig
    info: DataInfo
    accuracies: tuple[tuple[int, float], ...] = ()
    short: int | None = None

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What a card says of the weights: how they were trained, and the test accuracies that are known.

        These are the accuracy of these weights, and the mean and standard deviation over all seeds of the retrain.
        """
        own = dict(self.accuracies)
        if self.short is not None:
            what = (
                f"of the trial's own short training, {self.short} epochs without the held-out images, seed {self.seed}"
            )
            return [("weights", f"{what}: `ddarts retrain` trains them for good and reads the test split")]
        lines = [("weights", f"trained with seed {self.seed}")]
        if self.seed in own:
            lines.append(("test accuracy of these weights", f"{100 * own[self.seed]:.2f} %"))
        if len(own) > 1:
            mean, spread = statistics.fmean(own.values()), statistics.stdev(own.values())
            lines.append(
                (f"test accuracy over {len(own)} seeds", f"{100 * mean:.2f} ± {100 * spread:.2f} % (mean, sd)")
            )
        return lines

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a registered model on its weights: the seed, how they were trained, and their test accuracy.

        The test accuracy is given for the weights of a retrain alone.
        """
        found = {"seed": str(self.seed)}
        if self.short is not None:
            return found | {"weights": f"a trial's own short training, {self.short} epochs, no test accuracy"}
        return found | {"weights": "ddarts retrain"} | {name: f"{value:.6g}" for name, value in self.metrics.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """The test accuracy of these weights, a fraction of 1; empty if they have none, as those of a trial."""
        own = dict(self.accuracies)
        return {"test/accuracy": own[self.seed]} if self.seed in own else {}


def find_weights(folder: Path) -> Weights | None:
    """The weights of the first seed in a folder of `ddarts retrain`; None if the folder has no weights.

    The first seed is the smallest, of a finished retrain among the seeds that `result.json` lists. So weights are not
    chosen by their test accuracy.

    Raises:
        UserError: one of the folder's files is damaged.
    """
    place = RetrainFolder(folder)
    found = {seed: path / "weights.pt" for seed, path in place.seed_folders().items()}
    found = {seed: path for seed, path in found.items() if path.exists()}
    result = place.read_result() if found else None
    accuracies: tuple[tuple[int, float], ...] = ()
    if result is not None:
        accuracies = tuple(zip(result["seeds"], result["test"]["genotype"]["accuracies"], strict=True))
        found = {seed: found[seed] for seed in result["seeds"] if seed in found}
    if not found:
        return None
    seed = min(found)
    config: ExperimentConfig = load_experiment(place.config)
    return Weights(found[seed], seed, config, read_info(folder) or data_info(config.data), accuracies)


def weights_of_trial(trial: Path, config: ExperimentConfig, info: DataInfo) -> Weights | None:
    """The weights of a trial's own short training, which a sweep keeps of its best trial; None for other trials.

    Args:
        trial: the folder of the trial.
        config: the configuration of the trial.
        info: facts of the data.
    """
    path = trial / "weights.pt"
    return Weights(path, config.seed, config, info, short=config.retrain.epochs) if path.exists() else None


def cost_command(genotype: Path, config: ExperimentConfig, info: DataInfo) -> str:
    """The command `ddarts cost` that counts the same as `retrain_cost`.

    Args:
        genotype: the file of the genotype.
        config: the settings by which the network is built.
        info: facts of the data.
    """
    settings = config.retrain
    words: list[object] = ["--channels", settings.channels, "--classes", info.num_classes]
    words += ["--image-size", info.image_size, "--in-channels", info.channels]
    words += [] if settings.num_cells is None else ["--cells", settings.num_cells]
    words += [] if settings.form == "cifar" else ["--form", settings.form]
    words += [] if settings.derive_order == "paper" else ["--order", settings.derive_order]
    words += [] if settings.on_dead_cell == "warn" else ["--on-dead-cell", settings.on_dead_cell]
    if settings.reductions is not None:
        positions = settings.reductions
        words += ["--reductions", positions if isinstance(positions, str) else ",".join(map(str, positions))]
    return ddarts("cost", genotype, *words)


def table_row(folder: Path) -> dict[str, str]:
    """A folder of `ddarts retrain` as a row of a published table, by column; columns that it cannot fill are left out.

    Raises:
        UserError: the folder has no finished retrain.
    """
    weights = find_weights(folder)
    if weights is None or not weights.accuracies:
        raise UserError(f"{folder} is no finished retrain: it has no result.json with weights beside it")
    genotype = AnyGenotype.load(folder / "genotype.json")
    counted = retrain_cost(genotype, weights.config, weights.info)
    accuracies = [100 * accuracy for _, accuracy in weights.accuracies]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    seeds = f"{len(accuracies)} seed{'s' if len(accuracies) > 1 else ''}"
    return {
        "model": f"{folder.name} (here: {weights.config.data.name}, {seeds})",
        "params_m": f"{counted.parameters / 1e6:.2f}",
        "macs_m": _millions(counted.macs["B"]),
        "top1_percent": f"{statistics.fmean(accuracies):.2f}{spread}",
        "layers": str(weights.config.retrain.num_cells or genotype.num_cells),
    }


def _millions(number: int) -> str:
    """A number in millions, with at least two significant digits."""
    return f"{number / 1e6:.0f}" if number >= 9_950_000 else f"{number / 1e6:.2g}"


def _experiment(config: Mapping[str, Any]) -> ExperimentConfig:
    """A stored configuration, without what only a sweep or a tracker has."""
    return resolve({key: value for key, value in config.items() if key in _EXPERIMENT})


@dataclass(frozen=True)
class ModelWriter:
    """Writes the models of a genotype; the call is what `ddarts_analysis.export` takes as `enrich`.

    Attributes:
        onnx: whether to write an ONNX model too.
        program: whether to write a torch.export program too.
        retrain: the folder of `ddarts retrain` that has the weights; None takes the folder `retrain` in the folder of
            the genotype.
    """

    onnx: bool = False
    program: bool = False
    retrain: Path | None = None

    def weights(self, folder: Path, config: Mapping[str, Any], source: Path) -> Weights | None:
        """The weights of a retrain if there are any, else those that the sweep kept of the trial; None without either.

        Args:
            folder: the folder of the exported genotype.
            config: the configuration of the trial, as it is stored.
            source: the folder of the trial.
        """
        found = find_weights(self.retrain or folder / "retrain")
        if found is not None or not (source / "weights.pt").exists():
            return found
        settings = _experiment(config)
        return weights_of_trial(source, settings, read_info(folder) or data_info(settings.data))

    def __call__(self, folder: Path, genotype: AnyGenotype, config: Mapping[str, Any], source: Path) -> Models:
        """Write the models of a genotype to a folder.

        If there are no trained weights, only the networks that were asked for are written, untrained.

        Args:
            folder: the folder of the exported genotype, which is written to.
            genotype: the genotype.
            config: the configuration of the trial, as it is stored.
            source: the folder of the trial.

        Returns:
            The files that were written, facts of the models, and how to use them, for the card.
        """
        weights = self.weights(folder, config, source)
        if not (weights or self.onnx or self.program):
            return Models()
        if weights is None:
            settings = _experiment(config)
            blueprint = Blueprint.of(genotype, settings, read_info(folder))
            network = untrained(blueprint, settings.seed)
            facts, what = [("weights", "none: the network is freshly initialised, not trained")], "untrained network"
        else:
            blueprint = Blueprint.of(genotype, weights.config, weights.info)
            network = trained(blueprint, weights.path)
            facts, what = weights.facts, "trained network"
        classifier = Classifier(network, blueprint.info)
        info = blueprint.info
        files: list[tuple[str, str]] = []
        setup = Preprocessing.of(info)
        write(folder / FILE, setup)
        files.append((FILE, "names of the classes in the order of the outputs, and how pictures become inputs"))
        usage = [
            f"Images go in as float32 [batch, {info.channels}, {info.image_size}, {info.image_size}] of 0..1 (the "
            f"model normalises them itself), and {info.num_classes} logits per image come out.\n"
        ]
        if weights is not None:
            write_safetensors(network, blueprint, folder / "weights.safetensors")
            files.append(("weights.safetensors", "the trained weights, and in its metadata the network they are of"))
            usage.append(usages.WITH_DDARTS)
        if self.onnx:
            difference = write_onnx(classifier, folder / "model.onnx")
            files.append(("model.onnx", f"the {what} as ONNX, operator set {OPSET}; input `images`, output `logits`"))
            facts.append(("onnxruntime against torch", f"logits differ by at most {difference:.1g}"))
            usage.append(usages.with_onnxruntime(setup))
        if self.program:
            write_program(classifier, folder / "model.pt2")
            files.append(("model.pt2", f"the {what} as a torch.export program"))
            usage.append(usages.PROGRAM)
        return Models(files, facts, "\n".join(usage) + "\n")
