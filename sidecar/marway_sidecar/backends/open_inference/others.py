"""Servers that Marway does not manage: a version is what the server says that it has."""

from __future__ import annotations

import asyncio

from marway.errors import LoadFailed
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.model_directory import bundle_of
from marway_sidecar.backends.open_inference.wire import Known, Refused, Wire, signature_of
from marway_sidecar.errors import about

__all__ = ["found_there"]


async def found_there(wire: Wire, model: ServedModel) -> Known:
    """Return a version as somebody else's server has it.

    Raises:
        LoadFailed: It does not; the message says which versions it has.
    """
    manifest = await asyncio.to_thread(bundle_of, model, "open-inference")
    called = manifest.server_model or model.name
    metadata = await wire.metadata(called, model.version)
    number = model.version
    if metadata is None and (any_version := await wire.metadata(called, "")) is not None:
        versions = any_version.get("versions") or await _indexed(wire, called)
        if not versions:
            metadata, number = any_version, ""  # a server that knows no versions of it
        else:
            has = ", ".join(map(str, versions))
            message = f"its server has no version {model.version} of {called!r}: it has {has}"
            raise about(model, LoadFailed(f"{model.name} {model.version} is not served: {message}"))
    if metadata is None:
        message = f"its server has no model {called!r}{await _listed(wire)}"
        raise about(model, LoadFailed(f"{model.name} {model.version} is not served: {message}"))
    configured = await wire.configured(called, number)
    return Known(model, called, number, signature_of(metadata), str(metadata.get("platform") or ""), configured)


async def _indexed(wire: Wire, called: str) -> list[str]:
    """Return which versions a server's list has of a model: MLServer's metadata says none of them."""
    try:
        index = await wire.index()
    except Refused:
        return []
    return [each.version for each in index.get(called, ()) if each.version]


async def _listed(wire: Wire) -> str:
    """Return which models a server has, as the end of a sentence; nothing where it has no list."""
    try:
        index = await wire.index()
    except Refused:
        return ""
    ready = sorted(name for name, found in index.items() if any(each.state == "READY" for each in found))
    return f": it has {', '.join(ready)}" if ready else ", nor any other"
