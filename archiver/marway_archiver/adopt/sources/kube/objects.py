"""Objects of Kubernetes out of YAML or JSON files, as people keep them and as `kubectl get -o yaml` prints them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from marway.errors import InvalidInput
from marway_archiver.adopt.sources.files import MAX_TEXT_BYTES, listed, read_bytes
from marway_archiver.contents.yaml_document import Wrong, composed_all

__all__ = [
    "GROUPS",
    "RUNTIMES",
    "SUFFIXES",
    "KubeObject",
    "group_objects",
    "mapping",
    "not_looked_at",
    "of_group",
    "secret_of",
    "text",
]

SUFFIXES: Final = (".yaml", ".yml", ".json")
GROUPS: Final = ("serving.kserve.io", "serving.kubeflow.org")
"""API groups of KServe, and of KFServing before it."""
RUNTIMES: Final = ("ServingRuntime", "ClusterServingRuntime")
_HELPERS: Final = ("Secret", "ServiceAccount", "PersistentVolume", "PersistentVolumeClaim")
_MAX_OBJECTS: Final = 2000


@dataclass(frozen=True, slots=True)
class KubeObject:
    """One object, with the file and the line where it begins.

    Attributes:
        kind, group, name, namespace: What it is; the namespace is empty where none is said.
        document: All of it.
        where: `FILE:LINE`, for messages.
    """

    kind: str
    group: str
    name: str
    namespace: str
    document: Mapping[str, Any]
    where: str

    @property
    def spec(self) -> Mapping[str, Any]:
        return mapping(self.document.get("spec"))

    @property
    def annotations(self) -> Mapping[str, Any]:
        return mapping(mapping(self.document.get("metadata")).get("annotations"))

    @property
    def labels(self) -> Mapping[str, Any]:
        return mapping(mapping(self.document.get("metadata")).get("labels"))

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def group_objects(source: Path) -> list[KubeObject]:
    """Return all objects of a file, or of the files right below a directory that speak of KServe or hold Secrets.

    Raises:
        InvalidInput: A file is no YAML, or one that this program does not read (docs/adopt.md).
    """
    if source.is_file():
        files = [source] if source.suffix in SUFFIXES else []
    else:
        files = listed(source, lambda path: path.suffix in SUFFIXES and path.is_file())
    found: list[KubeObject] = []
    for file in files:
        if source.is_dir() and file.stat().st_size > MAX_TEXT_BYTES:
            continue  # such as a vocabulary that lies beside the YAML
        data = read_bytes(file)
        if source.is_dir() and b"apiVersion" not in data:
            continue
        found += _objects(data, str(file))
        if len(found) > _MAX_OBJECTS:
            raise InvalidInput(f"{source} holds more than {_MAX_OBJECTS} objects: take it over in parts")
    return found


def of_group(source: Path) -> bool:
    """Return whether a path may hold objects of KServe's groups, without parsing what does not name one.

    Raises:
        InvalidInput: A file that is given by itself cannot be read, or is too long.
    """
    if source.is_file():
        return source.suffix in SUFFIXES and _names_group(read_bytes(source))
    files = listed(source, lambda path: path.suffix in SUFFIXES and path.is_file())
    return any(each.stat().st_size <= MAX_TEXT_BYTES and _names_group(read_bytes(each)) for each in files)


def not_looked_at(objects: Sequence[KubeObject], taken: Callable[[KubeObject], bool]) -> list[str]:
    """Return a sentence about each object that is neither ``taken`` nor something that one of those names."""
    return [
        f"{each.where}: {each} is not looked at: it is none of what serves a model"
        for each in objects
        if not taken(each) and each.kind not in (*RUNTIMES, *_HELPERS)
    ]


def _names_group(data: bytes) -> bool:
    return any(group.encode() in data for group in GROUPS)


def _objects(data: bytes, where: str) -> Iterator[KubeObject]:
    try:
        for root in composed_all(data, MAX_TEXT_BYTES):
            line = root.start_mark.line + 1
            document = _plain(root)
            listing = isinstance(document, dict) and str(document.get("kind", "")).endswith("List")
            for each in document["items"] if listing and isinstance(document.get("items"), list) else [document]:
                if isinstance(each, dict) and each:
                    yield _object(each, f"{where}:{line}")
    except Wrong as exc:
        raise InvalidInput(f"{where}:{exc.line + 1}: {exc}") from exc


def _object(document: dict[str, Any], where: str) -> KubeObject:
    metadata = mapping(document.get("metadata"))
    kind, version, name = text(document.get("kind")), text(document.get("apiVersion")), text(metadata.get("name"))
    if not kind or not version:
        raise InvalidInput(f"{where}: no object of Kubernetes begins here: it has no kind or no apiVersion")
    group = version.rpartition("/")[0]
    return KubeObject(kind, group, name, text(metadata.get("namespace")), document, where)


def _plain(node: yaml.Node) -> Any:
    """Return what a node holds as JSON would; a date stays the text that it is."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each) for each in node.value]
    if node.tag.rpartition(":")[2] in ("bool", "int", "float", "null"):
        return yaml.constructor.SafeConstructor().construct_object(node)
    return node.value


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """Return a scalar as text, and an empty text for anything else."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def secret_of(secret: KubeObject) -> dict[str, str]:
    """Return what a Secret holds: `stringData` as it stands, `data` decoded.

    Raises:
        InvalidInput: A value of `data` is not base64 of a text.
    """
    found = {key: text(value) for key, value in mapping(secret.document.get("stringData")).items()}
    for key, value in mapping(secret.document.get("data")).items():
        found.setdefault(key, _decoded(text(value), f"{secret.where}: {key} of the Secret {secret.name}"))
    return found


def _decoded(value: str, what: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput(f"{what} is not base64 of a text") from exc
