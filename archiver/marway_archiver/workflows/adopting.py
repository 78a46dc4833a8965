"""Takes over the workflows that lie beside a TorchServe's archives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from marway.errors import MarwayError, NotFound
from marway.registry import Registry
from marway_archiver.adopt.adopting import Terms
from marway_archiver.adopt.found import Endpoint, FoundModel, FoundWorkflow
from marway_archiver.adopt.names import model_name
from marway_archiver.adopt.report import Adopted, Report
from marway_archiver.workflows.importing import import_workflow
from marway_archiver.workflows.reading import opened_workflow

__all__ = ["VERSION", "with_workflows"]

VERSION: Final = "1.0"
"""Of the graphs: a workflow has none."""


def with_workflows(report: Report, registry: Registry | None, terms: Terms, label: str) -> Report:
    """Return a report with the workflows of its source, which are imported as graphs; a dry run's without a registry.

    One that fails is told of, and does not keep others from it.
    """
    adopted = list(report.adopted)
    for found in report.found.workflows:
        there = {each.model.reference for each in adopted if each.problem is None}
        adopted += (each for each in _imported(found, registry, terms, label) if each.model.reference not in there)
    return replace(report, adopted=tuple(adopted))


def _imported(found: FoundWorkflow, registry: Registry | None, terms: Terms, label: str) -> Iterator[Adopted]:
    """Yield what becomes of a workflow's models and functions, and of the workflow itself."""
    path = found.path
    model = FoundModel(path.stem, VERSION, Endpoint("torchserve", path.stem), "graph", archive=path)
    try:
        with opened_workflow(path) as workflow:
            name = model_name(workflow.name)
            model = replace(model, name=name, endpoint=Endpoint("torchserve", workflow.name), labels=(label,))
        if registry is None:
            yield Adopted(model, "planned", labels=model.labels)
            return
        before = _is_there(registry, name)
        at = registry.state(name).labels.get(label)
        done = import_workflow(
            path,
            registry=registry,
            version=VERSION,
            model_store=found.store,
            label=label if at is None else None,
            note=f"adopted from torchserve {path}",
            gateway=terms.gateway if at is None else None,
        )
    except MarwayError as exc:
        yield Adopted(model, "refused", problem=exc.message)
        return
    yield from done.report.adopted
    how = f"`marway release {name} {VERSION} --label {label}` moves it"
    moved = at in (None, VERSION)
    yield Adopted(
        model,
        "known" if before else "published",
        done.record,
        labels=(label,) if moved else (),
        messages=(
            *done.report.found.notes,
            *(() if moved else (f"{label} of {name} points at {at} and stays there: {how}",)),
        ),
    )


def _is_there(registry: Registry, name: str) -> bool:
    try:
        registry.record(name, VERSION)
    except NotFound:
        return False
    return True
