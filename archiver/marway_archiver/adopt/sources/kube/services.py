"""One `InferenceService` of KServe's taken apart: its model, what serves it, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from marway.archives.entries import shown
from marway.errors import InvalidInput
from marway_archiver.adopt.found import Endpoint, Protocol
from marway_archiver.adopt.sources.kube.objects import GROUPS, KubeObject, mapping, text
from marway_archiver.adopt.sources.kube.storage import Storage, account_keys, storage_config

__all__ = ["MESH_MODE", "Server", "Service", "endpoint_of", "files_of", "is_service", "server_of", "taken_apart"]

MESH_MODE: Final = "serving.kserve.io/deploymentMode"
Server = Literal["mlserver", "openvino", "python", "tensorflow", "torchserve", "triton"]
"""What serves: `python` is KServe's own server of scikit-learn, XGBoost or LightGBM, whose place MLServer takes."""
_FORMATS: Final[Mapping[str, Server]] = {
    "lightgbm": "python", "mlflow": "mlserver", "onnx": "triton", "openvino_ir": "openvino", "pytorch": "torchserve",
    "sklearn": "python", "tensorflow": "tensorflow", "tensorrt": "triton", "triton": "triton", "xgboost": "python",
}  # fmt: skip
_LEGACY: Final = (*_FORMATS, "huggingface", "paddle", "pmml")
"""Formats that are a key of the predictor itself, as in `predictor.pytorch`."""
_NAMES: Final[Sequence[tuple[str, Server]]] = (
    ("torchserve", "torchserve"), ("triton", "triton"), ("mlserver", "mlserver"), ("openvino", "openvino"),
    ("ovms", "openvino"), ("tensorflow", "tensorflow"), ("sklearnserver", "python"), ("xgbserver", "python"),
    ("lgbserver", "python"), ("predictiveserver", "python"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """One `InferenceService`, taken apart.

    Attributes:
        thing: The object.
        model: What names the files: `predictor.model`, or `predictor.FORMAT` of old.
        format: Such as `sklearn`.
        revision: How many objects of its name stood before it: of several, the last has the canary's part.
    """

    thing: KubeObject
    model: Mapping[str, Any]
    format: str
    revision: int

    @property
    def predictor(self) -> Mapping[str, Any]:
        return mapping(self.thing.spec.get("predictor"))

    @property
    def protocol(self) -> Protocol:
        return "v2" if "v2" in text(self.model.get("protocolVersion")) else "v1"

    @property
    def canary(self) -> int | None:
        declared = self.predictor.get("canaryTrafficPercent")
        return declared if isinstance(declared, int) and 0 <= declared < 100 else None


def is_service(thing: KubeObject) -> bool:
    """Return whether an object is an `InferenceService` that is not ModelMesh's."""
    mesh = text(thing.annotations.get(MESH_MODE)) == "ModelMesh"
    return thing.kind == "InferenceService" and thing.group in GROUPS and not mesh


def taken_apart(thing: KubeObject, revision: int) -> Service:
    """Return a service's parts.

    Raises:
        InvalidInput: Its predictor is none that could be taken over.
    """
    predictor = mapping(thing.spec.get("predictor"))
    model = mapping(predictor.get("model"))
    if model:
        format_name = text(mapping(model.get("modelFormat")).get("name"))
        if not format_name:
            raise InvalidInput(f"{thing.where}: {thing} has a model without modelFormat.name")
        return Service(thing, model, format_name, revision)
    for legacy in _LEGACY:
        if legacy in predictor:
            return Service(thing, mapping(predictor[legacy]), legacy, revision)
    if "containers" in predictor:
        raise InvalidInput(
            f"{thing.where}: {thing} runs a container of its own: what it serves is not known; run it beside a sidecar "
            "of the backend http or open-inference (docs/http-backend.md), and publish a bundle without files"
        )
    raise InvalidInput(
        f"{thing.where}: {thing} has no predictor that is known: {', '.join(predictor) or 'none at all'}"
    )


def endpoint_of(service: Service, name: str) -> Endpoint:
    """Return how its clients ask for its model ``name``."""
    url = text(mapping(service.thing.document.get("status")).get("url")) or None
    host = urlsplit(url).hostname if url else None
    return Endpoint(service.protocol, name, None, url, host)


def server_of(service: Service, runtimes: Mapping[str, KubeObject]) -> Server:
    """Return what serves a service: as its runtime is called or made, else as KServe chooses for the format.

    Raises:
        InvalidInput: That is not known, or nothing that Marway has a backend for.
    """
    name = text(service.model.get("runtime"))
    if name:
        runtime = runtimes.get(name)
        containers = [] if runtime is None else runtime.spec.get("containers") or []
        hints = [name, *(text(mapping(each).get("image")) for each in containers)]
        for hint in hints:
            for word, server in _NAMES:
                if word in hint.lower():
                    return server
        raise InvalidInput(
            f"{service.thing.where}: {service.thing} names the runtime {shown(name)}, of which is not known what it "
            "runs: put the ServingRuntime's YAML beside it"
            + ("" if runtime is None else ", with an image whose name says the server")
        )
    found = _FORMATS.get(service.format)
    if found is None:
        raise InvalidInput(
            f"{service.thing.where}: no backend of Marway's serves the format {shown(service.format)}: run its server "
            "beside a sidecar of the backend http (docs/http-backend.md), and publish a bundle for it"
        )
    if found == "python" and service.protocol == "v2":
        return "mlserver"
    return "triton" if found == "torchserve" and service.format != "pytorch" else found


def files_of(service: Service, storage: Storage, objects: Sequence[KubeObject]) -> Path:
    """Return the file or directory of its model.

    Raises:
        InvalidInput: It is nowhere to be found.
    """
    model, where = service.model, f"{service.thing.where}: {service.thing}"
    account = text(service.predictor.get("serviceAccountName"))
    keys = account_keys(account, service.thing.namespace, objects)
    uri = text(model.get("storageUri"))
    declared = mapping(model.get("storage"))
    if declared:
        key = text(declared.get("key"))
        keys, bucket = storage_config(key, objects) if key else (keys, "")
        parameters = mapping(declared.get("parameters"))
        bucket = text(parameters.get("bucket")) or bucket
        kind = text(parameters.get("type")) or "s3"
        uri = text(declared.get("storageUri")) or f"{kind}://{bucket}/{text(declared.get('path')).strip('/')}"
        if not bucket and "storageUri" not in declared:
            raise InvalidInput(f"{where}: storage names no bucket: put the Secret storage-config beside it")
    if not uri:
        raise InvalidInput(f"{where} has no storageUri: its model comes with the image, which is not looked into")
    return storage.find(uri, keys)
