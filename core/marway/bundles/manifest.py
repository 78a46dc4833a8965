"""`MARWAY-INF/bundle.json`: what a bundle says of itself, and which kinds of model server bundles are for."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from marway.archives.entries import BUNDLE_MANIFEST_NAME, check_name
from marway.errors import InvalidArchive, InvalidReference, clip
from marway.records import BackendName
from marway.refs import check_backend, check_model_name, check_version
from marway.stored import Frozen

__all__ = [
    "BUNDLE_BACKENDS",
    "BUNDLE_SUFFIX",
    "DEFAULT_ROOT",
    "EMPTY_DIRECTORY",
    "MAR_BACKENDS",
    "MAX_MANIFEST_BYTES",
    "BundleManifest",
    "check_backend_of_bundle",
    "check_backend_of_mar",
    "encode_manifest",
    "parse_manifest",
]

BUNDLE_SUFFIX: Final = ".bundle"
"""How a bundle's file name ends."""
DEFAULT_ROOT: Final = "model"
"""Directory in a bundle that the server's files lie below."""
EMPTY_DIRECTORY: Final = ".marway-empty"
"""Name of the empty file that stands for a directory without files, which an archive cannot hold and some servers want
(the version of a Triton ensemble): unpacking makes the directory, and not the file."""
MAX_MANIFEST_BYTES: Final = 64 * 1024

MAR_BACKENDS: Final = ("mms", "native", "torchserve")
"""Kinds of model server that read a `.mar`, of those that Marway knows."""
BUNDLE_BACKENDS: Final = ("graph", "grpc-predictor", "http", "open-inference", "table", "tensorflow-serving")
"""Kinds of model server that read a bundle, of those that Marway knows; gateways read graphs and tables themselves."""

_RESERVED: Final = "marway-inf"


def _checked_root(root: str) -> str:
    check_name(root)
    if root.partition("/")[0].casefold() in (_RESERVED, "mar-inf"):
        raise InvalidArchive(f"root {root!r} is kept for what Marway itself says")
    return root


class BundleManifest(Frozen):
    """What a bundle says of itself.

    Attributes:
        format: 1; a bundle of another is of a newer Marway.
        name, version: Of the model, by the rules of `marway.refs`.
        backend: The kind of model server that it is for.
        root: Directory in the bundle that the server's files lie below.
        server_model: What a server that Marway does not manage calls the model; None: as the record's name is.
    """

    format: Literal[1] = 1
    name: Annotated[str, AfterValidator(check_model_name)]
    version: Annotated[str, AfterValidator(check_version)]
    backend: BackendName
    root: Annotated[str, AfterValidator(_checked_root)] = DEFAULT_ROOT
    server_model: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = None


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Return the canonical bytes: ASCII JSON, keys sorted, one field a line, nothing that is not said."""
    return f"{json.dumps(manifest.model_dump(exclude_none=True), indent=1, sort_keys=True)}\n".encode()


def parse_manifest(data: bytes) -> BundleManifest:
    """Parse the manifest of a bundle that may be anybody's; fields that are not known are left alone.

    Raises:
        InvalidArchive: It is not UTF-8 JSON, names a field twice, misses one, or has one that is not valid.
    """
    try:
        raw = json.loads(data.decode(), object_pairs_hook=_no_duplicates)
        if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > 1:
            raise InvalidArchive(f"{BUNDLE_MANIFEST_NAME} is of format {raw['format']}: a newer Marway made it")
        return BundleManifest.model_validate(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidArchive(f"{BUNDLE_MANIFEST_NAME}: {clip(field, 80)}: {clip(first['msg'], 200)}") from exc
    except InvalidReference as exc:
        raise InvalidArchive(f"{BUNDLE_MANIFEST_NAME}: {exc.message}") from exc
    except InvalidArchive as exc:
        named = (
            exc.message if exc.message.startswith(BUNDLE_MANIFEST_NAME) else f"{BUNDLE_MANIFEST_NAME}: {exc.message}"
        )
        raise InvalidArchive(named) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{BUNDLE_MANIFEST_NAME} is not JSON: {clip(str(exc), 200)}") from exc


def check_backend_of_bundle(backend: str) -> str:
    """Return ``backend`` if it can be what a bundle is for; of other packages any name.

    Raises:
        InvalidArchive: Its servers read a `.mar`.
        InvalidReference: It cannot be a name.
    """
    if check_backend(backend) in MAR_BACKENDS:
        raise InvalidArchive(
            f"servers of the backend {backend} read a .mar, which `marway pack --handler` makes; bundles are for "
            f"{', '.join(BUNDLE_BACKENDS)}"
        )
    return backend


def check_backend_of_mar(backend: str) -> str:
    """Return ``backend`` if it can be what a `.mar` is for; of other packages any name.

    Raises:
        InvalidArchive: Its servers read a bundle.
        InvalidReference: It cannot be a name.
    """
    if check_backend(backend) in BUNDLE_BACKENDS:
        raise InvalidArchive(
            f"servers of the backend {backend} read a bundle, which `marway pack --backend {backend} --directory DIR` "
            "makes, and this is a .mar"
        )
    return backend


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise InvalidArchive(f"{BUNDLE_MANIFEST_NAME} names a field twice in one object")
    return document
