"""`ddarts collect`."""

from __future__ import annotations

from pathlib import Path

import click

from ddarts_cli import completing
from ddarts_cli.options import out_option, storage_folder, storage_option


@click.command()
@click.argument("study", required=False, shell_complete=completing.study)
@click.option("--tracking-uri", help="Read the study from MLflow alone: an http address, or sqlite:///FILE.")
@storage_option
@out_option("STUDY/dataset; with --tracking-uri dataset-STUDY")
def command(
    study: str | None, tracking_uri: str | None, storage: str, overrides: tuple[str, ...], out: Path | None
) -> None:
    """Write the records of STUDY as a Parquet dataset: trials, epochs, contributions, alphas, genotypes.

    STUDY is a folder or a name. The folder of a search is a study with one trial. With --tracking-uri, STUDY is a name
    in the MLflow store at that address, and no folder is needed. Without STUDY, the command lists the studies of the
    store. The dataset is the same either way. If the store lacks something, a note says what.

    With --out FILE.parquet the whole study becomes one file, which `report`, `table`, `figure` and `regret` take as a
    STUDY: for a repository, or to send it to somebody.

    \b
    Examples:
      ddarts collect quickstart_sweep
      ddarts collect quickstart_sweep --out datasets
      ddarts collect quickstart_sweep --out quickstart_sweep.parquet
      ddarts collect quickstart_sweep --tracking-uri http://127.0.0.1:5000 --out datasets
      ddarts collect --tracking-uri sqlite:///runs/quickstart_sweep/mlflow.db
    """
    from ddarts_cli.console import finish, say
    from ddarts_core.ground.errors import UserError

    if tracking_uri is not None:
        from ddarts_analysis.mlflow_source import collect_from_mlflow, studies_in_mlflow

        if out is not None and out.suffix == ".parquet":
            raise UserError(f"--out {out}: the store lacks parts of a study: only its folder becomes one file")
        if study is None:
            for name in studies_in_mlflow(tracking_uri):
                say(name)
            return
        say(f"collect {study} from MLflow")
        collected = collect_from_mlflow(tracking_uri, study, out or Path(f"dataset-{study}"))
        following = []
    else:
        from ddarts_analysis.collect import collect
        from ddarts_tuning.store.study import find_study

        from ddarts_cli.files import find_search
        from ddarts_core.studies.shell import ddarts

        if study is None:
            raise UserError("name the study to collect: its folder, or its name in --storage")
        path = find_search(study) or find_study(study, storage_folder(storage, overrides)).path
        say(f"collect {path}")
        collected = collect(path, out)
        following = [ddarts("report", path)]
    for table, rows in collected.rows.items():
        say(f"{table}: {rows:,} rows")
    for note in collected.notes:
        say(f"note: {note}")
    finish([collected.folder], following)
