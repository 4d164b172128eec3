"""A trained network as a version in MLflow's model registry.

The model is the weights file that `ddarts export` wrote and the name of the module that loads it: nothing is pickled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ddarts_core
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import hide_secrets, one_line, without_secrets

from .study_run import artifact_location, make_client, with_secrets

ALIAS = "best"
LOADER = "ddarts_core.exports.serving"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    name: str
    version: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}@{ALIAS}"


def register(
    tracking_uri: str,
    run_id: str | None,
    weights: Path,
    name: str,
    *,
    shape: Sequence[int],
    classes: Sequence[str],
    tags: Mapping[str, str],
    experiment: str,
) -> Registered:
    """Log the model to a run, make it a version of `name`, and move the alias `best` to it.

    Args:
        tracking_uri: of the MLflow store, without secrets or with them.
        run_id: the run it belongs to; None makes one in `experiment`.
        weights: a file of `ddarts_core.exports.export.write_safetensors`.
        name: of the registered model, made if there is none.
        shape: of one image, [channels, height, width].
        classes: names, in the order of the logits.
        tags: of the version.
        experiment: name for the run that is made.

    Raises:
        UserError: the store cannot be used, or refuses the name.
    """
    client = make_client(tracking_uri)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        run = run_id or _new_run(client, experiment, name, artifact_location(tracking_uri))
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder) / "model", weights, shape, classes)
            client.log_artifacts(run, str(Path(folder) / "model"), "model")
        if not any(model.name == name for model in client.search_registered_models(f"name = '{name}'")):
            client.create_registered_model(name, description="Image classifier found by architecture search (ddarts)")
        made = client.create_model_version(name, source=f"runs:/{run}/model", run_id=run, tags=dict(tags))
        client.set_registered_model_alias(name, ALIAS, made.version)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = one_line(hide_secrets(str(error), tracking_uri))[:200]
        raise UserError(
            f"cannot register {name!r} in MLflow at {without_secrets(with_secrets(tracking_uri))!r}: {reason}"
        ) from error
    return Registered(name, str(made.version))


def _new_run(client: Any, experiment: str, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(experiment)
    identifier = found.experiment_id if found else client.create_experiment(experiment, artifact_location=artifacts)
    run = client.create_run(identifier, run_name=f"model {name}")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


#: What `ddarts_core.exports.serving` imports of others.
_NEEDS = ("torch", "numpy", "Pillow", "pydantic", "PyYAML", "safetensors")


def _save(folder: Path, weights: Path, shape: Sequence[int], classes: Sequence[str]) -> None:
    """As `pyfunc`, with the code that loads it: nobody need install ddarts."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Of the outputs alone: MLflow refuses paths, bytes and pixels of 0..255 where it is told of an array of float32.
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))])
    pyfunc.save_model(
        str(folder),
        loader_module=LOADER,
        data_path=str(weights),
        code_paths=[str(Path(ddarts_core.__file__).parent)],
        signature=ModelSignature(outputs=outputs),
        metadata={"classes": list(classes), "shape": list(shape), "ddarts": ddarts_core.__version__},
        # A build of torch for one kind of device has a version that the package index does not know: 2.9.1+cpu.
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _NEEDS],
    )
