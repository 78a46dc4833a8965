"""What a model of ModelMesh's says of itself: a `Predictor`, in either of its forms, or an `InferenceService`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from marway.archives.entries import shown
from marway.errors import InvalidInput
from marway_archiver.adopt.sources.files import parsed_json, read_text
from marway_archiver.adopt.sources.kube.objects import KubeObject, mapping, text
from marway_archiver.adopt.sources.kube.storage import Keys, Storage, storage_config

__all__ = ["DeclaredModel", "declared_model", "schema_of"]

_SECRET_KEY: Final = "serving.kserve.io/secretKey"  # noqa: S105 - an annotation's name
_SCHEMA_PATH: Final = "serving.kserve.io/schemaPath"


class DeclaredModel(NamedTuple):
    """What a Predictor says of its model, in either of its forms."""

    format: str
    runtime: str
    uri: str
    schema: str
    keys: Keys | None
    predictor: Mapping[str, Any]


def declared_model(thing: KubeObject, objects: Sequence[KubeObject]) -> DeclaredModel:
    """Return what an object says of its model.

    Raises:
        InvalidInput: It does not say what the model is, or where.
    """
    if thing.kind == "Predictor":
        spec = thing.spec
        storage = mapping(spec.get("storage"))
        old = mapping(storage.get("s3"))
        parameters = mapping(storage.get("parameters"))
        key = text(old.get("secretKey")) or text(storage.get("key"))
        uri, keys = _place(
            thing, key, text(old.get("bucket")) or text(parameters.get("bucket")),
            text(spec.get("path")) or text(storage.get("path")), text(parameters.get("type")), objects,
        )  # fmt: skip
        schema = text(spec.get("schemaPath")) or text(storage.get("schemaPath"))
        format_name = text(mapping(spec.get("modelType")).get("name"))
        runtime = text(mapping(spec.get("runtime")).get("name"))
        return DeclaredModel(_known(thing, format_name), runtime, uri, schema, keys, spec)
    predictor = mapping(thing.spec.get("predictor"))
    model = mapping(predictor.get("model"))
    format_name = _known(thing, text(mapping(model.get("modelFormat")).get("name")))
    storage = mapping(model.get("storage"))
    parameters = mapping(storage.get("parameters"))
    schema = text(storage.get("schemaPath")) or text(thing.annotations.get(_SCHEMA_PATH))
    if storage:
        uri, keys = _place(
            thing, text(storage.get("key")), text(parameters.get("bucket")), text(storage.get("path")),
            text(parameters.get("type")), objects,
        )  # fmt: skip
    else:
        key = text(thing.annotations.get(_SECRET_KEY))
        uri, keys = text(model.get("storageUri")), storage_config(key, objects)[0] if key else None
        if not uri:
            raise InvalidInput(f"{thing.where}: {thing} has neither storage nor storageUri")
    return DeclaredModel(format_name, text(model.get("runtime")), uri, schema, keys, predictor)


def _known(thing: KubeObject, name: str) -> str:
    if not name:
        raise InvalidInput(f"{thing.where}: {thing} does not say the type of its model")
    return name.partition(":")[0].lower()


def _place(
    thing: KubeObject, key: str, bucket: str, path: str, kind: str, objects: Sequence[KubeObject]
) -> tuple[str, Keys | None]:
    keys, default = storage_config(key, objects) if key else (None, "")
    bucket = bucket or default
    if kind == "pvc":
        return f"pvc://{bucket}/{path.strip('/')}", None
    if not bucket:
        raise InvalidInput(
            f"{thing.where}: {thing} names the storage {shown(key)} without a bucket: put the Secret storage-config, "
            "which says it, beside it"
        )
    return f"{kind or 's3'}://{bucket}/{path.strip('/')}", keys


def schema_of(declared: DeclaredModel, storage: Storage) -> Mapping[str, Any] | None:
    """Return the tensors that a schema file says, which lies in the storage of the model."""
    if not declared.schema:
        return None
    scheme, _, rest = declared.uri.partition("://")
    file = storage.find(f"{scheme}://{rest.partition('/')[0]}/{declared.schema.strip('/')}", declared.keys)
    return mapping(parsed_json(read_text(file), str(file)))
