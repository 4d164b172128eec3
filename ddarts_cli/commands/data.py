"""`ddarts data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli.options import json_option, out_option, print_json, set_option
from ddarts_core.ground.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddarts_core.data.images import DataInfo, Images
    from ddarts_core.settings.config import ExperimentConfig


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@out_option("storage")
@json_option
def command(file: Path, overrides: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Look at the images of FILE, an experiment or a sweep: classes, counts, splits, and what would be refused.

    The command writes NAME_contact_sheet.png, where NAME is the name in FILE. It shows some of the images that train
    the weights, as the search sees them, with augmentation. What the command finds is kept, so that a search or a sweep
    on the same images need not look again.

    \b
    Examples:
      ddarts data experiments/quickstart.yaml
      ddarts data my.yaml --set data.name=folder --set data.root=photos
      ddarts data my.yaml --set data.flip=true --out look --json
    """
    from ddarts_cli.console import finish
    from ddarts_cli.files import load
    from ddarts_cli.folders import make_folder
    from ddarts_cli.images import read_train
    from ddarts_core.data.contact_sheet import seen, write_contact_sheet
    from ddarts_core.data.sets import augment_of, class_counts, data_facts, load_test
    from ddarts_core.data.splits import split
    from ddarts_core.datasets.facts import majority
    from ddarts_core.ground.files import check_folder
    from ddarts_core.studies.shell import ddarts

    config = load(file, overrides)
    quiet = config.data.model_copy(update={"num_workers": 0})  # one batch is not worth processes of their own
    info, train = read_train(quiet)
    content = data_facts(quiet, info, train)
    test = load_test(quiet)
    refusals = refused(config, info, train)
    document: dict[str, Any] = {
        **content,
        "train": len(train),
        "test": len(test),
        "test_counts": class_counts(info, test),
        "splits": None,
        "majority": majority(content["train_counts"], info.classes),
        "refused": refusals,
        "contact_sheet": None,
    }
    shown = train
    try:
        parts = split(train, quiet, config.seed)
        document["splits"] = {name: len(getattr(parts, name)) for name in ("weights", "alphas", "held_out")}
        shown = parts.weights
    except UserError:
        pass  # it is among the refusals; the sheet then shows all training images
    folder = out or Path(check_folder(config.storage))
    make_folder(folder)
    sheet = folder / f"{config.name}_contact_sheet.png"  # beside the folder that a sweep wants for itself
    images, labels = seen(shown, info, augment_of(config.data, config.data.name), config.seed)
    write_contact_sheet(sheet, images, labels, info)
    document["contact_sheet"] = str(sheet)
    if as_json:
        print_json(document)
    else:
        print_text(document)
        given = [word for text in overrides for word in ("--set", text)]
        following = ddarts("sweep" if hasattr(config, "tune") else "search", file, *given)
        finish([sheet], [] if refusals else [following])
    if refusals:
        raise UserError("; ".join(refusals))


def refused(config: ExperimentConfig, info: DataInfo, train: Images) -> list[str]:
    """Why a search or a retrain with these settings would not begin, of what the images decide."""
    import torch

    from ddarts_core.data.splits import check_batch, split
    from ddarts_core.methods import network_of
    from ddarts_core.training.retrain import check_batches

    def splits() -> None:
        parts = split(train, config.data, config.seed)
        check_batch("weights", len(parts.weights), config.search.batch_size)
        check_batch("alphas", len(parts.alphas), config.search.batch_size)

    def network() -> None:
        with torch.device("meta"):
            network_of(config.search).build(info)

    checks: tuple[Callable[[], object], ...] = (splits, network, lambda: check_batches(config.retrain, len(train)))
    found = []
    for check in checks:
        try:
            check()
        except UserError as error:
            found.append(str(error))
    return found


#: Classes that are listed one by one.
MOST = 100


def print_text(document: dict[str, Any]) -> None:
    """The document as lines."""
    from ddarts_cli.console import say

    channels = "grey" if document["channels"] == 1 else "red, green, blue"
    size = document["image_size"]
    say(f"{document['name']}: {document['num_classes']} classes, {size} x {size} pixels, {channels}")
    for note in document["notes"]:
        say(f"  {note}")
    mean, std = (", ".join(f"{value:.4f}" for value in document[key]) for key in ("mean", "std"))
    say(f"  mean {mean}; standard deviation {std}")
    splits = document["splits"] or {}
    parts = ", ".join(f"{name} {number:,}" for name, number in splits.items())
    say(f"  training {document['train']:,}{f' ({parts})' if parts else ''}, test {document['test']:,}")
    say(f"  {document['majority']}")
    width = max(len(name) for name in document["classes"][:MOST])
    rows = zip(document["classes"], document["train_counts"], document["test_counts"], strict=True)
    for name, train, test in list(rows)[:MOST]:
        say(f"    {name:{width}}  training {train:,}, test {test:,}")
    if len(document["classes"]) > MOST:
        say(f"    and {len(document['classes']) - MOST:,} classes more (--json has all)")
    say(f"refused: {'; '.join(document['refused']) or 'nothing'}")
