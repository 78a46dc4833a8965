"""Imports a `.war`: its models and functions become versions, and the workflow a graph that asks these versions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from marway.archives.entries import shown
from marway.errors import InvalidArchive, MarwayError
from marway.graphs import Graph
from marway.records import VersionRecord
from marway.refs import Reference, check_model_name, check_version
from marway.registry import Registry
from marway.serving import ServingSettings
from marway_archiver.adopt.adopting import Terms, adopt
from marway_archiver.adopt.found import Endpoint, Found, FoundModel, Setting
from marway_archiver.adopt.names import model_name as named
from marway_archiver.adopt.report import Adopted, Report
from marway_archiver.archives import inspect_archive
from marway_archiver.contents.manifest import build_manifest
from marway_archiver.contents.rules import check_contents
from marway_archiver.packing import StrPath, place_archive
from marway_archiver.publishing.graphs import publish_graph
from marway_archiver.workflows.graphs import RETRIES_MAX, graph_of
from marway_archiver.workflows.reading import DEFAULTS, Workflow, WorkflowModel, opened_workflow

__all__ = ["WORKFLOW_SUFFIX", "ImportedWorkflow", "import_workflow"]

WORKFLOW_SUFFIX: Final = ".war"
_FUNCTION_SERVING: Final = ServingSettings(max_batch_rows=1)
"""TorchServe gives a workflow's function one request at a time, and many of them look at no other."""


@dataclass(frozen=True, slots=True)
class ImportedWorkflow:
    """What importing a workflow came to.

    Attributes:
        record: The graph's version.
        graph: Its document.
        report: What became of the models and functions, and of each of their settings.
    """

    record: VersionRecord
    graph: Graph
    report: Report


def import_workflow(
    path: StrPath,
    *,
    registry: Registry,
    version: str = "1.0",
    model_name: str | None = None,
    model_store: StrPath | None = None,
    create_registry: bool = False,
    label: str | None = None,
    note: str | None = None,
    gateway: str | None = None,
    force: bool = False,
) -> ImportedWorkflow:
    """Publish a workflow of TorchServe as a graph, and what its nodes ask as versions; again, it publishes nothing new.

    Models keep the names and versions of their archives, functions are called `WORKFLOW__FUNCTION` as in TorchServe.
    The graph's nodes name these versions, as a workflow names archives.

    Args:
        path: The `.war`.
        registry: Where to.
        version: Of the graph and of its functions: a workflow has none.
        model_name: What the graph is called; by default as the workflow is, as near as a name may be.
        model_store: The directory of the archives that it names; by default that of ``path``.
        create_registry: Make the registry if there is none yet.
        label: Point this label at the graph afterwards.
        note: Why, for the label's history.
        gateway: URL of a gateway's admin port, which runs the graph's golden examples before the label moves.
        force: Move the label without a proof.

    Raises:
        InvalidArchive: The `.war`, or an archive that it names, is not there, hostile, damaged, or TorchServe would
            refuse it.
        InvalidGraph: It has too many nodes.
        MarwayError: As `marway_archiver.publish`.
    """
    war = Path(path)
    store = war.parent if model_store is None else Path(model_store)
    check_version(version)
    with ExitStack() as stack:
        workflow = stack.enter_context(opened_workflow(war))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-workflow-")))
        name = named(workflow.name) if model_name is None else check_model_name(model_name)
        models = {node: _model(workflow, node, store) for node in workflow.models}
        functions = {node: _function(workflow, node, name, version, scratch) for node in workflow.functions}
        every = {**models, **functions}
        asked = {node: Reference(each.name, each.version) for node, each in every.items()}
        graph = graph_of(workflow, asked)
        once = {each.reference: each for each in every.values()}  # two nodes may ask one archive
        found = Found("torchserve", str(war), tuple(once.values()), notes=tuple(_notes(workflow, models, once)))
        report = adopt(found, registry, Terms(create_registry=create_registry))
    refused = [each for each in report.adopted if each.problem is not None]
    if refused:
        raise InvalidArchive(f"{war}: {'; '.join(_refusal(each) for each in refused)}")
    record = publish_graph(
        graph,
        model_name=name,
        version=version,
        registry=registry,
        label=label,
        note=note or f"imported from {war.name}",
        gateway=gateway,
        force=force,
    )
    return ImportedWorkflow(record, graph, report)


def _refusal(adopted: Adopted) -> str:
    return f"{adopted.model.endpoint.model}: {adopted.problem}"


def _notes(workflow: Workflow, models: Mapping[str, FoundModel], once: Mapping[str, FoundModel]) -> Iterator[str]:
    for node, model in models.items():
        if model.serving != once[model.reference].serving:
            yield f"model {shown(node)} has another's archive and other settings: the first ones are taken"
    for each in workflow.unused:
        yield f"model {shown(each)} is no node of the workflow, and was left out"


def _model(workflow: Workflow, node: str, store: Path) -> FoundModel:
    """Return what a node's archive is.

    Raises:
        InvalidArchive: It is not there, or would be refused.
    """
    model = workflow.models[node]
    if urlsplit(model.url).scheme:
        raise InvalidArchive(f"model {node}: {shown(model.url)} is an address: fetch it, and give --model-store DIR")
    path = store / model.url
    if not path.resolve().is_relative_to(store.resolve()):
        raise InvalidArchive(f"model {node}: {shown(model.url)} leads out of the model store {store}")
    if not path.exists():
        raise InvalidArchive(f"model {node}: {shown(model.url)} is not in {store}: give --model-store DIR")
    info = inspect_archive(path)
    if info.problems:
        raise InvalidArchive(f"model {node}: {path}: {info.problems[0]}")
    return FoundModel(
        named(info.model[0]),
        info.model[1],
        Endpoint("torchserve", f"{workflow.name}__{node}"),
        archive=path,
        serving=ServingSettings(**_serving(model)),
        settings=tuple(_settings(model)),
        warnings=info.warnings,
    )


def _serving(model: WorkflowModel) -> Mapping[str, Any]:
    least, most = model.setting("min-workers"), model.setting("max-workers")
    return {
        "min_workers": least,
        "max_workers": max(least, most, 1),
        "max_batch_rows": max(1, model.setting("batch-size")),
    }


def _settings(model: WorkflowModel) -> Iterator[Setting]:
    becomes = {
        "min-workers": "min_workers",
        "max-workers": "max_workers",
        "retry-attempts": "retries of the node",
        "timeout-ms": "timeout_s of the node",
    }
    for name in DEFAULTS:
        given = str(model.declared[name]) if name in model.declared else f"{DEFAULTS[name]} (not said)"
        if name == "max-batch-delay":
            yield Setting(name, given, "none", "a request is not kept waiting for others: those that wait go together")
        elif name == "batch-size":
            most = model.setting(name)
            if most == 1:
                yield Setting(name, given, "kept", "max_batch_rows 1")
            else:
                yield Setting(name, given, "changed", f"max_batch_rows {most}, once golden examples prove batches")
        elif name == "retry-attempts" and model.setting(name) > RETRIES_MAX:
            yield Setting(name, given, "changed", f"retries of the node, of which {RETRIES_MAX} are most")
        else:
            yield Setting(name, given, "kept", becomes[name])
    for name in model.ignored:
        yield Setting(name, "", "none", "TorchServe knows no such setting either")


def _function(workflow: Workflow, node: str, graph: str, version: str, scratch: Path) -> FoundModel:
    """Write a function as an archive: the workflow's own files, of which TorchServe is told that function.

    Raises:
        InvalidArchive: TorchServe could not load it.
    """
    name = named(f"{graph}__{node}")
    manifest = build_manifest(model_name=name, version=version, handler=f"{workflow.handler}:{node}")
    try:
        findings = check_contents(manifest, workflow.files, packing=False)
        packed = place_archive(
            scratch / f"{len(list(scratch.iterdir()))}.mar",
            manifest,
            workflow.files.values(),
            findings.warnings,
            force=False,
            progress=None,
        )
    except MarwayError as exc:
        raise InvalidArchive(f"function {node}: {exc.message}") from exc
    return FoundModel(
        name,
        version,
        Endpoint("torchserve", f"{workflow.name}__{node}"),
        archive=packed.path,
        serving=_FUNCTION_SERVING,
        settings=(Setting("(function)", node, "kept", f"of {workflow.handler}, one request at a time"),),
        warnings=findings.warnings,
    )
