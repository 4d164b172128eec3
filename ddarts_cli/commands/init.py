"""`ddarts init`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from ddarts_cli.options import Folder

#: Experiments on digits, which scikit-learn brings: none needs images that must be fetched first.
FILES = ("quickstart.yaml", "quickstart_sweep.yaml", "methods_digits.yaml", "truth_digits.yaml", "regret_digits.yaml")


@click.command()
@click.argument("folder", metavar="[DIR]", default="experiments", type=Folder(path_type=Path))
def command(folder: Path) -> None:
    """Write files to begin with into DIR (default: experiments): a search, a sweep, a comparison, a truth.

    The comparison is one of all methods. The truth trains every network of a small space, and a sweep in that space is
    judged by it. All use scikit-learn's digits, so they need no images and no network. A file that exists is never
    replaced.

    \b
    Examples:
      ddarts init
      ddarts init my/files
    """
    from ddarts_cli.console import finish
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.files import write_atomic
    from ddarts_core.studies.shell import ddarts

    paths = [folder / name for name in FILES]
    for path in paths:
        if path.exists():
            raise UserError(f"{path} exists and is not replaced: give another folder, such as `ddarts init new`")
    for path in paths:
        write_atomic(path, files("ddarts_cli.experiments").joinpath(path.name).read_bytes())
    search, sweep, *_ = paths
    finish(paths, [ddarts("search", search), ddarts("sweep", sweep)])
