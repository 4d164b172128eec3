"""What a RayJob may be: the facts of KubeRay's custom resource definition as JSON schema.

Source: github.com/ray-project/kuberay, ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go, from which
config/crd/bases/ray.io_rayjobs.yaml is generated, and Ray's reference of them: ray.io/v1 of KubeRay 1.5.1. Names, types
and what is required are those of the definition. What it leaves open is closed here, so that a misspelt key fails: the
API server would drop it. Pod templates are checked against Kubernetes' schemas, as `kubernetes-validate` ships them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.32"

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_TEMPLATE = {"type": "object"}  # `pods` finds these


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_HEAD = _closed(
    ("rayStartParams", "template"),
    serviceType=_TEXT,
    headService={"type": "object"},
    enableIngress=_FLAG,
    rayStartParams=_TEXTS,
    template=_TEMPLATE,
)
_WORKERS = _closed(
    ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName=_TEXT,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    suspend=_FLAG,
    rayStartParams=_TEXTS,
    template=_TEMPLATE,
    scaleStrategy=_closed(workersToDelete={"type": "array", "items": _TEXT}),
)
_CLUSTER = _closed(
    ("headGroupSpec",),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
    rayVersion=_TEXT,
    enableInTreeAutoscaling=_FLAG,
    authOptions=_closed(mode={"enum": ["disabled", "token"]}, secretName=_TEXT, enableK8sTokenAuth=_FLAG),
    autoscalerOptions={"type": "object"},
    headServiceAnnotations=_TEXTS,
    gcsFaultToleranceOptions={"type": "object"},
    suspend=_FLAG,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
)
_SPEC = _closed(
    activeDeadlineSeconds={**_COUNT, "minimum": 1},
    backoffLimit=_COUNT,
    clusterSelector=_TEXTS,
    deletionStrategy={"type": "object"},
    entrypoint=_TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=_TEXT,
    jobId=_TEXT,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    metadata=_TEXTS,
    rayClusterSpec=_CLUSTER,
    runtimeEnvYAML=_TEXT,
    shutdownAfterJobFinishes=_FLAG,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterConfig=_closed(backoffLimit=_COUNT),
    submitterPodTemplate=_TEMPLATE,
    suspend=_FLAG,
    ttlSecondsAfterFinished=_COUNT,
)
RAYJOB = _closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_closed(("name",), name=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS),
    spec=_SPEC,
)


def validate(job: Mapping[str, Any]) -> None:
    """Check a RayJob and every pod template in it.

    Raises:
        jsonschema.ValidationError: a key is unknown or missing, or a value has another type.
    """
    jsonschema.validate(job, RAYJOB)
    for template in pods(job["spec"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def pods(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pod templates of a RayJob's specification."""
    cluster = spec.get("rayClusterSpec", {})
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])] if cluster else []
    submitter = [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    return [*(group["template"] for group in groups), *submitter]
