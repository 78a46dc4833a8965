"""What `marway doctor` finds of the model servers that pods of `marway up` would have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from marway.errors import MarwayError
from marway.wire.pods import Remark
from marway_ops.shell.output import Case, Finding, findings_of
from marway_ops.up.plan import opened_backend

__all__ = ["examine_servers"]


def examine_servers(engines: Sequence[str], *, config: Path | None = None) -> tuple[frozenset[str], list[Finding]]:
    """Look at the model servers of pods of these engines, one each, that Marway's runtime does not start.

    Args:
        engines: The engine of each pod.
        config: File of settings that the pods' sidecars would read, or None.

    Returns:
        The engines that the runtime starts, and what was found of the others.
    """
    by_runtime: set[str] = set()
    cases: list[Case] = []
    for number, engine in enumerate(engines):
        pod = f"pod-{number}"
        try:
            backend = opened_backend(engine, name=pod, config=config)
        except ModuleNotFoundError as exc:
            advice = "pip install 'marway[all]', or make setup in a checkout"
            cases.append(Case(engine, "problem", f"the package {exc.name} is not installed", advice, pod))
            continue
        except MarwayError as exc:
            advice = f"docs/backends.md says what pods of {engine} need"
            cases.append(Case(engine, "problem", exc.message.removeprefix(f"{pod}: "), advice, pod))
            continue
        if backend.by_runtime:
            by_runtime.add(engine)
        else:
            cases += (Case(engine, *each, pod) for each in _remarks(backend))
    return frozenset(by_runtime), findings_of(cases)


def _remarks(backend: Any) -> list[Remark]:
    examine = import_module("marway_sidecar.backends.examine").examine
    try:
        found: list[Remark] = asyncio.run(examine(backend))
    except OSError as exc:  # of a file that its settings name
        return [Remark("problem", f"{exc.strerror or exc}: {exc.filename}", "see the settings of the sidecar")]
    return found
