"""`ddarts export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddarts_cli import completing
from ddarts_cli.options import out_option, storage_folder, storage_option

if TYPE_CHECKING:
    from ddarts_analysis.export import Exported


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
    help="Order: metrics, a minus for largest first, or pareto (default: the study's objectives).",
)
@click.option("--within-limits", is_flag=True, help="Leave out trials that are beyond a limit of the sweep.")
@click.option("--onnx", is_flag=True, help="Also write model.onnx; without trained weights it is marked as untrained.")
@click.option("--program", is_flag=True, help="Also write model.pt2, a torch.export program.")
@click.option("--register", metavar="NAME", help="Register the first one's trained network in MLflow, alias best.")
@click.option("--tracking-uri", help="MLflow store of --register (default: the study's).")
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

    Trained weights are written as safetensors: those of RETRAIN, a folder of `ddarts retrain`, or those that lie in the
    folder `retrain` of an exported genotype, where the card's command puts them.

    \b
    Examples:
      ddarts export quickstart_sweep --top 3
      ddarts export quickstart_sweep --by -accuracy,params --out best
      ddarts export quickstart_sweep --top 1 --within-limits
      ddarts export quickstart_sweep --trial 2 --onnx
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
    exported = export(path, top, by, out, ModelWriter(onnx, program), trial, within_limits)
    for item in exported:
        say(f"{item.place}. {item.genotype.hash}: {item.genotype.num_edges} edges, trial {item.row['trial_id']}")
    if trial is None and len(exported) < top:
        distinct = f"{len(exported)} distinct genotype{'s' if len(exported) > 1 else ''}"
        say(f"no more than {distinct} to export: {state_sentence(read_study(path))}")
    following = [retrain_command(item.folder) for item in exported[:1]]
    if register is not None and found is not None:
        _check_trained(exported[0])
        run = exported[0].row.get("run_id")
        tags = {"study": found.name, "trial_id": str(exported[0].row["trial_id"])}
        own = tracking_uri in (None, found.data["tracking_uri"])
        uri = tracking_uri or str(found.data["tracking_uri"])
        following = _register(register, exported[0].folder, uri, str(run) if own and run else None, tags, found.name)
    finish([item.folder for item in exported], following)


def _export_retrain(
    retrain: Path, onnx: bool, program: bool, register: str | None, tracking_uri: str | None, out: Path | None
) -> None:
    from ddarts_analysis.export import export_retrain

    from ddarts_cli.console import finish, say
    from ddarts_cli.models import ModelWriter, cost_command, find_weights
    from ddarts_core.genotypes.genotype import Genotype
    from ddarts_core.ground.errors import UserError
    from ddarts_core.networks.cost import retrain_cost

    weights = find_weights(retrain)
    if weights is None:
        raise UserError(f"{retrain} has no trained weights (genotype-seed-*/weights.pt): train with ddarts retrain")
    if register is not None and tracking_uri is None:
        raise UserError("--register needs the MLflow store of a retrain: name it with --tracking-uri")
    counted = retrain_cost(Genotype.load(retrain / "genotype.json"), weights.config, weights.info)
    say(f"export {retrain}, seed {weights.seed}")
    folder = export_retrain(retrain, counted.to_dict(), out, ModelWriter(onnx, program, retrain))
    following = [cost_command(folder / "genotype.json", weights.config, weights.info)]
    if register is not None and tracking_uri is not None:
        following = _register(register, folder, tracking_uri, None, {}, weights.config.name)
    finish([folder], following)


def _check_trained(item: Exported) -> None:
    from ddarts_analysis.card import retrain_command

    from ddarts_cli.models import find_weights
    from ddarts_core.ground.errors import UserError

    if find_weights(item.folder / "retrain") is None:
        raise UserError(
            f"{item.folder} has no trained weights to register: first run `{retrain_command(item.folder)}`, "
            "then this again"
        )


def _register(
    name: str, folder: Path, uri: str, run_id: str | None, tags: dict[str, str], experiment: str
) -> list[str]:
    """Register the weights in a folder; the line that loads them."""
    from ddarts_tuning.tracking.registry import ALIAS, register

    from ddarts_cli.console import say
    from ddarts_core.exports.export import read_safetensors
    from ddarts_core.ground.redact import without_secrets

    weights = folder / "weights.safetensors"
    _, blueprint = read_safetensors(weights)
    info = blueprint.info
    made = register(
        uri,
        run_id,
        weights,
        name,
        shape=(info.channels, info.image_size, info.image_size),
        classes=info.classes,
        tags={**tags, "genotype_hash": blueprint.genotype.hash, "data": info.name},
        experiment=experiment,
    )
    say(f"registered {name}, version {made.version}, alias {ALIAS}")
    shown = without_secrets(uri)
    return [f"python -c \"import mlflow; mlflow.set_tracking_uri('{shown}'); mlflow.pyfunc.load_model('{made.uri}')\""]
