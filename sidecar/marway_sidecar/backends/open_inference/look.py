"""Whether a server reads the model repository that the sidecar writes, as `marway doctor` asks: nothing is changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from marway.errors import clip
from marway.wire.pods import Remark
from marway_sidecar.backends.open_inference.wire import Refused, Wire

__all__ = ["of_repository"]


async def of_repository(wire: Wire, root: Path, *, timeout_s: float) -> list[Remark]:
    """Return what is wrong with a model repository: the server has another one, or none.

    Raises:
        RuntimeDown: The server does not answer.
    """
    try:
        index = await wire.index(timeout_s=timeout_s)
    except Refused as exc:
        advice = "start it with one (Triton: --model-control-mode=explicit), or set open_inference_manage = false"
        what = f"it has no model repository that can be asked: {clip(exc.text, 120)}"
        return [Remark("problem", what, advice)]
    there = await asyncio.to_thread(_models, root)
    names = frozenset().union(*there.values())
    loaded = sorted(name for name, entries in index.items() if any(each.state == "READY" for each in entries))
    advice = "name the server's own model repository, on a volume that both have"
    for name in loaded:
        if name not in names:
            what = f"open_inference_repository, {root}, is not what the server reads: it has {clip(name, 80)} loaded"
            return [Remark("problem", f"{what}, which is not there", advice)]
    for directory, called in sorted(there.items()):
        if not called & index.keys():
            what = f"open_inference_repository, {root}, is not what the server reads: it does not list"
            return [Remark("problem", f"{what} {clip(directory, 80)}, which is there", advice)]
    return []


def _models(root: Path) -> dict[str, frozenset[str]]:
    """Return the directories of models, with the names that a server may have for each."""
    found: dict[str, frozenset[str]] = {}
    for each in root.iterdir() if root.is_dir() else ():
        if each.name.startswith(".") or not each.is_dir():
            continue
        settings = each / "model-settings.json"
        if settings.is_file():
            with contextlib.suppress(ValueError, AttributeError):  # no server knows it then
                said = json.loads(settings.read_text(encoding="utf-8"))
                found[each.name] = frozenset({each.name, str(said.get("name"))})
        elif (each / "config.pbtxt").is_file() or any(inner.name.isdigit() for inner in each.iterdir()):
            found[each.name] = frozenset({each.name})
    return found
