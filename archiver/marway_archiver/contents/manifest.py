"""`MAR-INF/MANIFEST.json`: read strictly, written in one way; and what its handler names.

A new manifest is built by torch-model-archiver's own classes, so that it says what theirs says. Only the
time of day is replaced: `createdOn` is `_FIXED_CREATED_ON` in every canonical archive, for a clock in the
bytes would give the same model another digest each time it is packed. When a version was made stands in
its record.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from marway.archives.entries import MANIFEST_NAME, shown
from marway.errors import InvalidArchive, InvalidReference, clip
from marway.refs import check_model_name, check_version

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # it leaves its version file open when imported
    from model_archiver.manifest_components.manifest import Manifest as TheirManifest
    from model_archiver.manifest_components.manifest import RuntimeType
    from model_archiver.manifest_components.model import Model as TheirModel
    from model_archiver.model_packaging_utils import model_handlers

__all__ = [
    "BUILTIN_HANDLERS",
    "MAX_MANIFEST_BYTES",
    "RUNTIMES",
    "Manifest",
    "ManifestModel",
    "build_manifest",
    "encode_manifest",
    "parse_handler",
    "parse_manifest",
]

BUILTIN_HANDLERS = frozenset(model_handlers)
"""Handlers that come with TorchServe, by the name that `--handler` takes."""
_FIXED_CREATED_ON = "01/01/1980 00:00:00"
"""`createdOn` of every canonical archive, in torch-model-archiver's form (day first)."""
MAX_MANIFEST_BYTES = 1024 * 1024
_UNSAID_VERSION = "1.0"
_LSP_BUILTIN_HANDLERS = frozenset({"BaseHandler", "TorchScriptHandler"})  # the same, for the C++ backend
RUNTIMES = tuple(runtime.value for runtime in RuntimeType)
"""What `--runtime` takes."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, alias_generator=to_camel, populate_by_name=True,
        protected_namespaces=(),
    )  # fmt: skip


class ManifestModel(_Part):
    """What the archive holds: names of files are basenames at the archive's root."""

    model_name: str
    serialized_file: str | None = None
    handler: str = Field(min_length=1)
    model_file: str | None = None
    model_version: str
    extensions: Any = None
    requirements_file: str | None = None
    config_file: str | None = None


class Manifest(_Part):
    """The manifest; fields that torch-model-archiver 0.12 does not write are kept as they are."""

    created_on: str | None = None
    runtime: Literal["python", "python3", "LSP"] = "python"
    model: ManifestModel
    archiver_version: str | None = None


def build_manifest(*, version: str, runtime: str = "python", **model: str | None) -> Manifest:
    """Return the manifest that torch-model-archiver writes for its arguments, but for `createdOn`.

    ``model`` are `model_name`, `handler`, and what else `ManifestModel` has: names of files without their directory.
    """
    theirs = TheirManifest(
        runtime=runtime, model=TheirModel(**{"serialized_file": None, **model}, model_version=version)
    )
    return Manifest.model_validate({**theirs.manifest_dict, "createdOn": _FIXED_CREATED_ON})


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes: `createdOn` fixed, known fields in their order, then others sorted."""
    return json.dumps(_ordered(manifest.model_copy(update={"created_on": _FIXED_CREATED_ON})), indent=2).encode()


def parse_manifest(data: bytes) -> Manifest:
    """Parse the manifest of an archive that may be anybody's.

    Raises:
        InvalidArchive: It is not UTF-8 JSON, names a field twice, or misses or has invalid one of
            `model.modelName`, `model.modelVersion`, `model.handler`, `runtime`.
    """
    try:
        raw = json.loads(data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        manifest = Manifest.model_validate(_with_version(raw))
        check_model_name(manifest.model.model_name)
        check_version(manifest.model.model_version)
        return manifest
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidArchive(f"{MANIFEST_NAME}: {clip(field, 80)}: {clip(first['msg'], 200)}") from exc
    except InvalidReference as exc:
        raise InvalidArchive(f"{MANIFEST_NAME}: {exc.message}") from exc
    except InvalidArchive:
        raise
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{MANIFEST_NAME} is not JSON: {clip(str(exc), 200)}") from exc


def _with_version(raw: Any) -> Any:
    """Return a manifest with a version: Multi Model Server's archiver says none, and that of TorchServe 1.0 then."""
    if not isinstance(raw, dict) or "specificationVersion" not in raw or not isinstance(raw.get("model"), dict):
        return raw
    return {**raw, "model": {"modelVersion": _UNSAID_VERSION, **raw["model"]}}


def _ordered(part: _Part) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if value is not None:
            document[field.alias or name] = _ordered(value) if isinstance(value, _Part) else value
    others: dict[str, Any] = json.loads(json.dumps(part.model_extra or {}, sort_keys=True))
    return document | others


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise InvalidArchive(f"{MANIFEST_NAME} names a field twice in one object")
    return document


def _no_constant(text: str) -> Any:
    raise InvalidArchive(f"{MANIFEST_NAME} holds {text}, which is not JSON")


class Handler(NamedTuple):
    """Names that a handler's file may have, the usual one first (none for TorchServe's own), and its function's."""

    files: tuple[str, ...]
    function: str | None = None


def parse_handler(text: str, runtime: str) -> Handler:
    """Parse ``BUILTIN``, ``FILE``, ``FILE.py``, ``FILE:FUNCTION`` or ``FILE.py:FUNCTION``.

    Handlers of the runtime `LSP` are shared libraries, named without their ending.

    Raises:
        InvalidArchive: What stands after `:` cannot be a function's name.
    """
    directory, slash, base = text.rpartition("/")
    stem, colon, function = base.partition(":")
    if runtime == "LSP":
        if text in _LSP_BUILTIN_HANDLERS:
            return Handler(())
        endings = (".dylib", ".so") if sys.platform == "darwin" else (".so", ".dylib")
        return Handler(tuple(f"{directory}{slash}{stem.removesuffix(end)}{end}" for end in endings))
    if text in BUILTIN_HANDLERS:
        return Handler(())
    if colon and not function.isidentifier():
        raise InvalidArchive(f"handler {shown(text)}: {shown(function)} cannot be a function's name")
    file = stem if stem.endswith(".py") else f"{stem}.py"
    return Handler((f"{directory}{slash}{file}",), function or None)
