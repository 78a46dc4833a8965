"""Strict validation: against the API's own schemas, for custom resources against `deploy/kubernetes/schemas`."""

from __future__ import annotations

import functools
import json

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from kubernetes_validate.utils import SchemaNotFoundError, schema_contents
from referencing import Registry, Resource

from support.kubernetes.render import KUBERNETES, Document

VERSIONS = ("1.29.0", "1.37.0")
"""The first Kubernetes with native sidecar containers on by default, and the newest whose schemas there are."""


def fault(document: Document, version: str) -> str | None:
    """Return what is wrong with an object, or None. A kind that nobody knows is wrong, and so is an unknown field."""
    api, kind = document["apiVersion"], document["kind"]
    try:
        validator = _custom(api, kind) or _native(api, kind, version)
    except (FileNotFoundError, SchemaNotFoundError):
        return f"{kind} of {api} is no kind of Kubernetes {version}, and there is no schema of it in the tree"
    error = best_match(validator.iter_errors(document))
    if error is None:
        return None
    return f"{kind} {document.get('metadata', {}).get('name')}: {error.json_path}: {error.message[:300]}"


@functools.cache
def _custom(api: str, kind: str) -> Draft202012Validator | None:
    path = KUBERNETES / "schemas" / f"{api.replace('/', '_')}_{kind.lower()}.json"
    return Draft202012Validator(json.loads(path.read_text())) if path.exists() else None


@functools.cache
def _native(api: str, kind: str, version: str) -> Draft202012Validator:
    group, _, name = api.rpartition("/")
    if group and "." in group and not group.endswith(".k8s.io"):
        raise FileNotFoundError(api)  # apps/v1 and apps.example.com/v1 would be one file
    directory = f"kubernetes-json-schema/v{version}-local-strict"
    file = "-".join([kind.lower(), *([group.partition(".")[0]] if group else []), name])
    schema = schema_contents(f"{directory}/{file}.json", version)
    return Draft202012Validator(schema, registry=_definitions(directory, version))


@functools.cache
def _definitions(directory: str, version: str) -> Registry:
    return Resource.from_contents(schema_contents(f"{directory}/_definitions.json", version)) @ Registry()
