"""A trained network as a version in MLflow's model registry.

The model is the weights file that `ddarts export` wrote, and the name of the module that loads the file. Nothing is
pickled.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import ddarts_core
from ddarts_core.exports import serving
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.redact import hide_secrets, one_line, without_secrets

from ..settings.config import EXPERIMENT_VARIABLE
from .study_run import experiment_of, make_client, with_secrets

ALIAS = "best"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    name: str
    version: str

    @property
    def uri(self) -> str:
        """The URI by which `mlflow.pyfunc.load_model` loads this version."""
        return f"models:/{self.name}@{ALIAS}"


@dataclass(frozen=True)
class Model:
    """A model to register.

    Attributes:
        weights: a file of `ddarts_core.exports.export.write_safetensors`.
        example: an example of the input: images with values of 0..1, float32 [batch, channels, height, width].
        classes: the names of the classes, in the order of the logits.
        tags: the tags of the version.
        metrics: the metrics of the run that is made for the model, if one is made.
        description: the description of the version, in Markdown.
    """

    weights: Path
    example: np.ndarray[Any, np.dtype[np.float32]]
    classes: Sequence[str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    description: str


def register(tracking_uri: str, run_id: str | None, name: str, model: Model, experiment: str) -> Registered:
    """Log the model to a run, make it a version of `name`, and move the alias `best` to it.

    Args:
        tracking_uri: the URI of the MLflow store, without secrets or with them.
        run_id: the run that the model belongs to; None makes a run in `experiment`, or in that of
            MLFLOW_EXPERIMENT_NAME.
        name: the name of the registered model, which is made if there is none.
        model: the model to register.
        experiment: the name of the experiment for a run that is made.

    Raises:
        UserError: the store cannot be used, or refuses the name.
    """
    client = make_client(tracking_uri)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    experiment = os.environ.get(EXPERIMENT_VARIABLE) or experiment
    try:
        run = run_id or _new_run(client, experiment_of(client, experiment, tracking_uri), name, model.metrics)
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder) / "model", model)
            client.log_artifacts(run, str(Path(folder) / "model"), "model")
        if not any(known.name == name for known in client.search_registered_models(f"name = '{name}'")):
            client.create_registered_model(name, description="Image classifier found by architecture search (ddarts)")
        made = client.create_model_version(
            name, source=f"runs:/{run}/model", run_id=run, tags=dict(model.tags), description=model.description
        )
        client.set_registered_model_alias(name, ALIAS, made.version)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = one_line(hide_secrets(str(error), tracking_uri))[:200]
        raise UserError(
            f"cannot register {name!r} in MLflow at {without_secrets(with_secrets(tracking_uri))!r}: {reason}"
        ) from error
    return Registered(name, str(made.version))


def _new_run(client: Any, experiment_id: str, name: str, metrics: Mapping[str, float]) -> str:
    run = client.create_run(experiment_id, run_name=f"model {name}")
    for metric, value in metrics.items():
        client.log_metric(run.info.run_id, metric, value)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


#: What `ddarts_core.exports.serving` imports of others.
_NEEDS = ("torch", "numpy", "Pillow", "pydantic", "PyYAML", "safetensors")


def _save(folder: Path, model: Model) -> None:
    """Save the model as `pyfunc` with the code that loads it, so that nobody has to install ddarts to use it."""
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype(np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, *model.example.shape[1:]))]),
        outputs=Schema([TensorSpec(float32, (-1, len(model.classes)))]),
    )
    # MLflow would refuse whole numbers, float64, paths and bytes where a signature says float32, unless the model
    # itself checks what it is given, as `Predictor` does. It knows such models by this mark, which it has no public
    # name for; it stands in their file MLmodel.
    signature._is_signature_from_type_hint = True
    pyfunc.save_model(
        str(folder),
        loader_module=serving.__name__,
        data_path=str(model.weights),
        code_paths=[str(Path(ddarts_core.__file__).parent)],
        signature=signature,
        input_example=model.example,
        metadata={
            "classes": list(model.classes),
            "shape": list(model.example.shape[1:]),
            "ddarts": ddarts_core.__version__,
        },
        # A build of torch for one kind of device has a version that the package index does not know: 2.9.1+cpu.
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _NEEDS],
    )
