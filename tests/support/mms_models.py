"""Archives as `model-archiver` makes them for Multi Model Server, and the versions that they are."""

from __future__ import annotations

import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

from marway_sidecar.backends.base import ServedModel

__all__ = ["HANDLER", "MmsModels", "write_archive"]

HANDLER = """
import json
import os
import time

from mms.service import PredictionException


def wait_for(path):
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answer(row, index, rows, context):
    value = row.get("data", row.get("body"))
    text = bytes(value).decode() if isinstance(value, (bytes, bytearray)) else value
    verb, _, rest = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if verb == "say":
        return rest
    if verb == "fail":
        raise ValueError("on purpose")
    if verb == "refuse":
        raise PredictionException("refused", int(rest))
    if verb == "memory":
        raise MemoryError("on purpose")
    if verb == "die":
        os._exit(3)
    if verb in ("wait", "pieces"):
        wait_for(rest)
        return {"wait": "waited", "pieces": "onetwo"}[verb]
    if verb == "large":
        return b"x" * int(rest)
    if verb == "object":
        return object()
    if verb == "teapot":
        context.set_response_status(418, "teapot", index)
        context.set_response_header(index, "X-Kind", "teapot")
        context.set_response_content_type(index, "text/csv")
        return "a,b"
    return {
        "names": sorted(row),
        "type": type(value).__name__,
        "rows": rows,
        "tenant": context.get_request_header(index, "x-tenant"),
    }


def handle(data, context):
    if data is None:
        return None
    return [answer(row, index, len(data), context) for index, row in enumerate(data)]
"""


def write_archive(path: Path, source: str = HANDLER, **model: str) -> Path:
    """Write what `model-archiver --handler service:handle` writes, which says no version of the model."""
    manifest = {
        "runtime": "python",
        "model": {"modelName": "old", "handler": "service:handle", **model},
        "modelServerVersion": "1.0",
        "implementationVersion": "1.0",
        "specificationVersion": "1.0",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("service.py", source)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest, indent=2))
    return path


class MmsModels:
    """Makes versions in a model store, each with a name of its own."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._numbers = itertools.count()

    def model(self, name: str, *, source: str = HANDLER, **facts: Any) -> ServedModel:
        name = f"{name}-{next(self._numbers)}"
        path = write_archive(self._store / f"{name}.mar", source, modelName=name)
        known = {"workers": 1, "load_timeout_s": 60.0, "predict_timeout_s": 60.0, **facts}
        return ServedModel(f"mv_{name.upper()}", name, "1.0", path, **known)
