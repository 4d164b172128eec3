"""`ddarts export`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddarts_cli import completing
from ddarts_cli.options import out_option, storage_folder, storage_option

if TYPE_CHECKING:
    from ddarts_cli.models import Weights


@click.command()
@click.argument("study", metavar="STUDY|SEARCH|RETRAIN", shell_complete=completing.study)
@click.option("--top", type=int, help="How many genotypes of a study (default: 3).")
@click.option(
    "--trial",
    shell_complete=completing.trial,
    help="Only the genotype of this trial of a study, for example 2; the others stay as they are.",
)
@click.option(
    "--by",
    shell_complete=completing.order,
    help="What ranks genotypes: pareto, or metrics by commas, with a minus where the largest is best "
    "(default: the study's objectives).",
)
@click.option("--within-limits", is_flag=True, help="Leave out trials that are beyond a limit of the sweep.")
@click.option("--onnx", is_flag=True, help="Also write model.onnx; without trained weights it is marked as untrained.")
@click.option("--program", is_flag=True, help="Also write model.pt2, a torch.export program.")
@click.option("--register", metavar="NAME", help="Register the first one's trained network in MLflow, alias best.")
@click.option(
    "--tracking-uri", help="MLflow store of --register (default: the study's; of a retrain MLFLOW_TRACKING_URI)."
)
@storage_option
@out_option("STUDY/export")
def command(
    study: str,
    top: int | None,
    trial: str | None,
    by: str | None,
    within_limits: bool,
    onnx: bool,
    program: bool,
    register: str | None,
    tracking_uri: str | None,
    storage: str,
    overrides: tuple[str, ...],
    out: Path | None,
) -> None:
    """Write the best genotypes of a study, or the one of a search or a retrain: JSON, picture, settings, cost, a card.

    Trained weights are written as safetensors. They are those of RETRAIN, a folder of `ddarts retrain`; or those in the
    folder `retrain` of an exported genotype, where the command in the card puts them; or those that a sweep kept of its
    best trial's own short training. The card and MLflow's registry say which.

    \b
    Examples:
      ddarts export quickstart_sweep --top 3
      ddarts export quickstart_sweep --by -accuracy,params --out best
      ddarts export limited --top 1 --within-limits
      ddarts export quickstart_sweep --trial 1 --onnx
      ddarts export quickstart_sweep --by pareto --top 10 --onnx --program
      ddarts export runs/quickstart
      ddarts export runs/retrain-0123456789ab --onnx
      ddarts export quickstart_sweep --top 1 --register digits
    """
    from ddarts_cli.console import finish, say
    from ddarts_core.ground.errors import UserError

    if trial is not None and top is not None:
        raise UserError("--trial names one genotype and --top counts the best: choose one of them")
    retrain = Path(study)
    if (retrain / "result.json").is_file() and not (retrain / "study.json").exists():
        if trial is not None:
            raise UserError(f"{retrain} is a retrain, which has no trials: leave --trial out")
        _export_retrain(retrain, onnx, program, register, tracking_uri, out)
        return
    from ddarts_analysis.card import retrain_command
    from ddarts_analysis.export import export, state_sentence
    from ddarts_analysis.study import read_study
    from ddarts_tuning.store.study import find_study

    from ddarts_cli.files import find_search
    from ddarts_cli.models import ModelWriter

    search = find_search(study)
    found = None if search else find_study(study, storage_folder(storage, overrides))
    if found is None and register is not None:
        raise UserError(f"{study} is a search, without trained weights to register: leave --register out")
    path = found.path if found is not None else Path(study).expanduser()
    top = (3 if found is not None else 1) if top is None else top
    say(f"export {f'the best {top}' if trial is None else f'trial {trial}'} of {path}")
    writer = ModelWriter(onnx, program)
    exported = export(path, top, by, out, writer, trial, within_limits)
    for item in exported:
        say(f"{item.place}. {item.genotype.hash}: {item.genotype.num_edges} edges, trial {item.row['trial_id']}")
    if trial is None and len(exported) < top:
        distinct = f"{len(exported)} distinct genotype{'s' if len(exported) > 1 else ''}"
        say(f"no more than {distinct} to export: {state_sentence(read_study(path))}")
    best = exported[0]
    following = [retrain_command(best.folder, best.config, root=(best.config.get("data") or {}).get("root"))]
    if register is not None and found is not None:
        run, trial_id = best.row.get("run_id"), str(best.row["trial_id"])
        weights = writer.weights(best.folder, best.config, found.path / "trials" / trial_id)
        if weights is None:
            raise UserError(
                f"{best.folder} has no trained weights to register, as the sweep keeps those of its best trial "
                f"alone: first run `{following[0]}`, then this again"
            )
        tags = {"study": found.name, "trial_id": trial_id}
        own = tracking_uri in (None, found.data["tracking_uri"])
        uri = tracking_uri or str(found.data["tracking_uri"])
        following = _register(register, best.folder, weights, uri, str(run) if own and run else None, tags, found.name)
    finish([item.folder for item in exported], following)


def _export_retrain(
    retrain: Path, onnx: bool, program: bool, register: str | None, tracking_uri: str | None, out: Path | None
) -> None:
    from ddarts_analysis.export import export_retrain
    from ddarts_tuning.settings.config import URI_VARIABLE

    from ddarts_cli.console import finish, say
    from ddarts_cli.models import ModelWriter, cost_command, find_weights
    from ddarts_core.genotypes.genotype import AnyGenotype
    from ddarts_core.ground.errors import UserError
    from ddarts_core.networks.cost import retrain_cost

    weights = find_weights(retrain)
    if weights is None:
        raise UserError(f"{retrain} has no trained weights (genotype-seed-*/weights.pt): train with ddarts retrain")
    uri = tracking_uri or os.environ.get(URI_VARIABLE)
    if register is not None and uri is None:
        raise UserError(f"--register needs an MLflow store for a retrain: name it by --tracking-uri or {URI_VARIABLE}")
    counted = retrain_cost(AnyGenotype.load(retrain / "genotype.json"), weights.config, weights.info)
    say(f"export {retrain}, seed {weights.seed}")
    folder = export_retrain(retrain, counted.to_dict(), out, ModelWriter(onnx, program, retrain))
    following = [cost_command(folder / "genotype.json", weights.config, weights.info)]
    if register is not None and uri is not None:
        following = _register(register, folder, weights, uri, None, {}, weights.config.name)
    finish([folder], following)


def _register(
    name: str, folder: Path, weights: Weights, uri: str, run_id: str | None, tags: dict[str, str], experiment: str
) -> list[str]:
    """Register the weights in a folder, and let its card say how they are served; the line that serves them."""
    from ddarts_tuning.settings.config import URI_VARIABLE
    from ddarts_tuning.tracking.registry import ALIAS, Model, register

    from ddarts_cli import usages
    from ddarts_cli.console import say
    from ddarts_core.exports.export import Classifier, read_safetensors
    from ddarts_core.ground.files import write_atomic
    from ddarts_core.ground.redact import without_secrets

    file, readme = folder / "weights.safetensors", folder / "README.md"
    network, blueprint = read_safetensors(file)
    info, genotype = blueprint.info, blueprint.genotype.hash
    facts = [("genotype", genotype), ("data", info.name), ("classes", ", ".join(info.classes)), *weights.facts]
    model = Model(
        weights=file,
        example=Classifier(network, info).sample(1).numpy().round(3),
        classes=info.classes,
        tags={**tags, **weights.tags, "genotype_hash": genotype, "data": info.name},
        metrics=weights.metrics,
        description="\n".join([*(f"- {what}: {value}" for what, value in facts), "", usages.SERVED]),
    )
    made = register(uri, run_id, name, model, experiment)
    write_atomic(readme, readme.read_text(encoding="utf-8") + usages.with_mlflow(made.uri))
    say(f"registered {name}, version {made.version}, alias {ALIAS}: {weights.tags['weights']}")
    return [shlex.join(["env", f"{URI_VARIABLE}={without_secrets(uri)}", *usages.serve(made.uri)])]
