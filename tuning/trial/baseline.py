"""The start architecture of a DARTOpti search, trained like the network that was found: the gain is measured from it.

The start architecture is trained once for each seed and settings of a study, in `baselines/KEY` of the study's folder.
The first trial that needs it trains it; a trial that needs it at the same time waits. The training has a checkpoint
after every epoch, so that another process can go on with it if the first is killed. If the study is in an object store,
two machines may both train the start architecture: they write the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import Images
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord, write_jsonl
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.hashing import config_hash
from ddarts_core.settings.warm_start import start_genotype
from ddarts_core.studies.study_files import read_json, write_json
from ddarts_core.training.retrain import Retrain

from ..store.locks import alone
from ..store.study import Study


def cost_of_start(config: ExperimentConfig, info: DataInfo) -> dict[str, float]:
    """Parameters and multiply-adds per image of the start, counted as a trial's are; empty without a start."""
    if config.search.start is None:
        return {}
    counted = retrain_cost(start_genotype(config.search), config, info)
    return {"parameters": counted.parameters, "macs": counted.macs["A"]}


def of_start(
    study: Study, config: ExperimentConfig, info: DataInfo, train: Images, held_out: Images
) -> dict[str, float]:
    """The cost of the start, and its `held_out/` metrics with a trial's recipe, epochs, images and seed.

    If the training of the start diverges, only the cost is given. If the trial has no start, the result is empty.

    Args:
        study: the study of the trial.
        config: the configuration of the trial.
        info: the facts of the trial's images.
        train: the images that the trial's network was trained on.
        held_out: the images that the trial's network was scored on.
    """
    cost = cost_of_start(config, info)
    if not cost:
        return {}
    genotype = start_genotype(config.search)
    run = Retrain(config.retrain, genotype, info, train, None, config.seed)
    data = config_hash(config.data, exclude=("root", "num_workers"))
    text = json.dumps([run.state_dict()["identity"], data], sort_keys=True)
    below = f"baselines/{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder = study.path / below
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        study.pull(below)
        result = folder / "baseline.json"
        if not result.exists():
            write_atomic(folder / "genotype.json", genotype.to_json())
            scores = _train(study, below, run, held_out)
            write_json(result, {"start": config.search.start, "seed": config.seed, "metrics": cost | scores})
            (folder / "checkpoint.pt").unlink(missing_ok=True)
            study.push(below)
        found: dict[str, float] = read_json(result)["metrics"]
    return found


def _train(study: Study, below: str, run: Retrain, held_out: Images) -> dict[str, float]:
    """The `held_out/` metrics after the last epoch; empty if the training diverges."""
    file = study.path / below / "checkpoint.pt"
    records: list[EpochRecord] = []
    if file.exists():
        try:
            state: dict[str, Any] = checkpoint.load(file)
            run.load_state_dict(state["retrain"])
            records = [EpochRecord.from_dict(data) for data in json.loads(state["records"])]
        except UserError:  # it was damaged by what ended the process before: the training begins again
            file.unlink()
    try:
        for record in run.records():
            records.append(record)
            lines = f"[{', '.join(each.line for each in records)}]"
            checkpoint.save(file, {"retrain": run.state_dict(), "records": lines})
            study.push(below)
    except Diverged:
        return {}
    finally:
        write_jsonl(file.with_name("records.jsonl"), records, timing=True)
    return {f"held_out/{name}": value for name, value in run.evaluate(held_out).metrics.items()}
