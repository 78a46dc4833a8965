"""Which versions are copied when somebody names some: those that they name in turn come along, and come first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from marway.errors import NotFound, VersionNotFound
from marway.graphs import GRAPH_BACKEND, references
from marway.records import VersionRecord
from marway.refs import Reference, is_label, parse_reference
from marway.registry import Registry

__all__ = ["Need", "Plan", "plan_of"]


@dataclass(frozen=True, slots=True)
class Need:
    """A version that another one names.

    Attributes:
        by: Who names it, and as what, such as ``node rank of tour 1.0``.
        model, selector: Which: a label or a version.
        version: What that is in the registry that is read; None where it is not there.
    """

    by: str
    model: str
    selector: str
    version: str | None

    def __str__(self) -> str:
        return f"{self.model}/{self.selector}, which {self.by} names"


@dataclass(slots=True)
class Plan:
    """What is to be copied.

    Attributes:
        records: The versions; what another one names is before it.
        asked: Which of them were asked for, as (model, version); the others come along.
        named: Which were asked for as the one version, and not with all of their model.
        needs: By (model, version), what each names.
        unfinished: Versions that were left out, as their publish did not come to its end.
    """

    records: list[VersionRecord] = field(default_factory=list)
    asked: set[tuple[str, str]] = field(default_factory=set)
    named: set[tuple[str, str]] = field(default_factory=set)
    needs: dict[tuple[str, str], tuple[Need, ...]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """The models of which versions were asked for, in order."""
        return sorted({name for name, _ in self.asked})

    def versions(self, model: str) -> list[str]:
        """Return the versions of a model that are to be copied."""
        return [record.version for record in self.records if record.name == model]


def plan_of(source: Registry, wanted: Sequence[str], *, along: bool = True) -> Plan:
    """Return what is copied where ``wanted`` are asked for.

    Args:
        source: Where they are.
        wanted: Each ``MODEL`` (all its versions), ``MODEL@LABEL``, ``MODEL/LABEL``, ``MODEL/VERSION`` or an id; none
            stands for all models.
        along: Whether what graphs and fallbacks name comes along.

    Raises:
        NotFound: There is no such model, version or label.
        InvalidInput: One of them cannot be a reference, or a graph cannot be read.
    """
    plan = Plan()
    names = list(wanted) or [each.name for each in source.summaries()]
    for record, named in (found for text in names for found in _asked(source, text, plan)):
        plan.asked.add((record.name, record.version))
        if named:
            plan.named.add((record.name, record.version))
        _add(source, record, plan, along=along)
    return plan


def _asked(source: Registry, text: str, plan: Plan) -> Iterator[tuple[VersionRecord, bool]]:
    """Yield the versions that somebody asks for, and whether that is the one that was named."""
    reference = parse_reference(text.replace("@", "/", 1))
    pointer = source.pointer(reference.name)
    if reference.selector is not None or pointer is None or pointer.kind != "name":
        yield source.resolve(reference), True
        return
    name = pointer.model
    for version in source.summary(name).versions:
        if (record := _published(source, name, version)) is not None:
            yield record, False
        else:
            plan.unfinished.append(f"{name} {version}")


def _published(source: Registry, name: str, version: str) -> VersionRecord | None:
    try:
        return source.resolve(Reference(name, version))
    except VersionNotFound:  # deleted just now, or not published to its end
        return None


def _add(source: Registry, record: VersionRecord, plan: Plan, *, along: bool) -> None:
    key = record.name, record.version
    if key in plan.needs:
        return
    plan.needs[key] = ()  # fallbacks may go in a circle
    needs = []
    for by, model, selector in _named_by(source, record):
        needed: VersionRecord | None = None
        try:
            needed = source.resolve(Reference(model, selector))
        except NotFound:
            pass
        else:
            if along:
                _add(source, needed, plan, along=along)
        needs.append(Need(by, model, selector, None if needed is None else needed.version))
    plan.needs[key] = tuple(needs)
    plan.records.append(record)


def _named_by(source: Registry, record: VersionRecord) -> Iterator[tuple[str, str, str]]:
    which = f"{record.name} {record.version}"
    if record.backend == GRAPH_BACKEND:
        for each in references(source.graph(record)):
            yield f"node {each.node} of {which}", each.model, each.selector
    if record.serving.fallback is not None:
        model, _, selector = record.serving.fallback.partition("/")
        yield f"the fallback of {which}", model, selector


def label_needed(need: Need) -> bool:
    """Return whether a label is named, and is there in the registry that is read."""
    return need.version is not None and is_label(need.selector)
