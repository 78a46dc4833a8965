"""Loading versions ahead, proving and comparing them: which pods are asked, and what is written of a proof."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from marway.deadline import Deadline
from marway.errors import AnswersDiffer, InvalidRequest, MarwayError, NoPodAvailable, PodNotFound, Unavailable, clip
from marway.graphs import GRAPH_BACKEND, TABLE_BACKEND
from marway.records import Proof, VersionRecord, utc_now
from marway.refs import Reference
from marway.registry import Registry
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.text import did_you_mean
from marway.wire.comparison import Comparison
from marway.wire.pods import LoadReport, ModelStatus
from marway_gateway.admin.graph_versions import GATEWAY, GraphVersions, Part, of_node
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.placement import PlacementSpec, Pod, PodSet, placement_spec
from marway_gateway.placement.pod_api import PodApi

__all__ = ["Loader", "PodLoad"]

_LINES_MAX = 10
_TEXT_MAX = 2000
_OF_GATEWAYS: Final = (GRAPH_BACKEND, TABLE_BACKEND)
"""What gateways run and read themselves."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodLoad:
    """What came of a load on one pod; of a graph, which no pod has, in this gateway."""

    pod: Pod | None
    """None stands for the gateway."""
    report: LoadReport
    proof: Proof | None
    """What was written about it; None when no proof was asked for."""

    @property
    def where(self) -> str:
        """The pod's name, or the gateway's."""
        return GATEWAY if self.pod is None else self.pod.name


class Loader:
    """Has versions loaded, proved and unloaded.

    Args:
        pods: All pods.
        api: Asks them.
        writer: Stores proofs.
        graphs: Does for graphs what pods do for models.
        algorithm_pools: Pools of versions that name none, by algorithm.
    """

    def __init__(
        self,
        pods: PodSet,
        api: PodApi,
        writer: RegistryWriter,
        graphs: GraphVersions,
        *,
        algorithm_pools: Mapping[str, str],
    ) -> None:
        self._pods = pods
        self._api = api
        self._writer = writer
        self.graphs = graphs
        self._algorithm_pools = algorithm_pools

    def pod(self, name: str) -> Pod:
        """Return a pod by its name.

        Raises:
            PodNotFound: There is none; the message names those there are.
        """
        found = next((pod for pod in self._pods.pods if pod.name == name), None)
        if found is None:
            known = sorted(pod.name for pod in self._pods.pods)
            meant = did_you_mean(clip(name, 80), known)
            raise PodNotFound(
                f"there is no pod {clip(name, 80)!r}: there are {clip(', '.join(known) or 'none', 500)}{meant}"
            )
        return found

    async def load(
        self, record: VersionRecord, serving: ServingSettings, *, prove: bool, pod: str | None, deadline: Deadline
    ) -> tuple[PodLoad, ...]:
        """Load a version where requests for it will go, or on one pod.

        That is on the first `pods` pods of its order that take requests. The first that can take it decides whether
        the load went well, and proves the version if that is asked for; on the others it is loaded as far as they can.
        Of a graph, the versions that its nodes ask are loaded so; the gateway proves it. A table is opened here.

        Raises:
            InvalidRequest: It is a graph or a table, and was to be loaded on one pod.
            PodNotFound: There is no such pod.
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            AnswersDiffer: It is loaded and answers its golden examples otherwise.
            Unavailable: No pod can load it now.
            DeadlineExceeded: It took too long; the load goes on.
        """
        if record.backend in _OF_GATEWAYS:
            if pod is not None:
                raise InvalidRequest(
                    f"{record.name} {record.version} is a {record.backend}, which no pod has: load it without naming "
                    "one, which loads what its nodes ask where that belongs, and opens tables"
                )
            return await self._load_graph(Resolved(record, serving, None), prove=prove, deadline=deadline)
        if pod is not None:
            return (await self._load(self.pod(pod), record, prove=prove, deadline=deadline),)
        spec = placement_spec(record, serving, self._algorithm_pools)
        first, rest = await self._first(record, spec, prove=prove, deadline=deadline)
        others = rest[: serving.pods - 1]
        done = await asyncio.gather(*(self._try(other, record, deadline) for other in others))
        return (first, *(each for each in done if each is not None))

    async def compare(self, load: PodLoad, version: Resolved, *, base: str | None, deadline: Deadline) -> Comparison:
        """Return how a version that was loaded compares with another one, or by itself: asked where it was loaded.

        Where one of them is a graph, the gateway asks both, as it answers its callers.

        Raises:
            MarwayError: As `PodApi.compare`.
        """
        record, registry = version.record, self._writer.registry
        if record.backend == TABLE_BACKEND:
            return await self.graphs.compare(version, None, deadline=deadline)
        other = None if base is None else await self._writer.call(_version, registry, record.name, base)
        if load.pod is not None and (other is None or other.record.backend != GRAPH_BACKEND):
            return await self._api.compare(load.pod, record.name, record.version, base=base, deadline=deadline)
        if other is not None:
            half = Deadline.after(deadline.left_s() / 2)
            try:
                await self.load(other.record, other.serving, prove=False, pod=None, deadline=half)
            except MarwayError as exc:  # its published golden answers stand for its own
                _log.warning("%s %s cannot be asked: %s", record.name, base, exc.message)
        return await self.graphs.compare(version, other, deadline=deadline)

    async def prove_on(self, engine: str, record: VersionRecord, *, deadline: Deadline) -> tuple[PodLoad, ...]:
        """Load and prove a version on a pod of an engine; nothing is done where no such pod takes requests.

        Raises:
            MarwayError: As `load`.
        """
        now = self._pods.now()
        for pod in self._pods.order(record.name, record.version):
            if pod.status is not None and pod.status.backend == engine and pod.trouble(now) is None:
                return (await self._load(pod, record, prove=True, deadline=deadline),)
        return ()

    async def unload(
        self, record: VersionRecord, *, pod: str | None, deadline: Deadline
    ) -> list[tuple[Pod, ModelStatus]]:
        """Unload a version on every pod that answers, or on one.

        Raises:
            InvalidRequest: It is a graph or a table, which no pod has.
            PodNotFound: There is no such pod.
            Unavailable: A pod could not do it; others may have.
        """
        if record.backend == TABLE_BACKEND:
            raise InvalidRequest(
                f"{record.name} {record.version} is a table, which no pod has: gateways let go of those used least "
                "where others need the room",
                model=record.name,
                version=record.version,
            )
        if record.backend == GRAPH_BACKEND:
            parts = sorted({str(each.resolved.record.name) for each in await self.graphs.parts(record)})
            raise InvalidRequest(
                f"{record.name} {record.version} is a graph, which no pod has: unload the models that its nodes ask "
                f"({', '.join(parts)}), if nobody else needs them",
                model=record.name,
                version=record.version,
            )
        if pod is not None:
            pods: Sequence[Pod] = (self.pod(pod),)
        else:
            pods = [each for each in self._pods.order(record.name, record.version) if each.unreachable is None]
        done = await asyncio.gather(
            *(self._api.unload(each, record.name, record.version, deadline=deadline) for each in pods),
            return_exceptions=True,
        )
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return [(each, result) for each, result in zip(pods, done, strict=True) if isinstance(result, ModelStatus)]

    async def _load_graph(self, graph: Resolved, *, prove: bool, deadline: Deadline) -> tuple[PodLoad, ...]:
        """Load what the nodes of a graph ask, then prove it; that comes first of what is returned.

        Raises:
            MarwayError: As `load`; the message names the node.
        """
        parts = await self.graphs.parts(graph.record)
        done = await asyncio.gather(*(self._load_part(part, deadline) for part in parts), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        report = await self.graphs.report(graph, prove=prove, deadline=deadline)
        proof = await self._prove(GATEWAY, graph.record, report) if prove else None
        loads = [load for each in done if isinstance(each, tuple) for load in each]
        return (PodLoad(None, report, proof), *loads)

    async def _load_part(self, part: Part, deadline: Deadline) -> tuple[PodLoad, ...]:
        record, serving = part.resolved.record, part.resolved.serving
        try:
            return await self.load(record, serving, prove=False, pod=None, deadline=deadline)
        except MarwayError as exc:
            if part.needed:
                raise of_node(exc, part.node) from exc
            _log.warning("node %s: %s %s was not loaded: %s", part.node, record.name, record.version, exc.message)
            return ()

    async def _first(
        self, record: VersionRecord, spec: PlacementSpec, *, prove: bool, deadline: Deadline
    ) -> tuple[PodLoad, Sequence[Pod]]:
        """Load on the first pod that can; return also the pods behind it."""
        now = self._pods.now()
        pods = [pod for pod in self._pods.order_of(spec) if pod.trouble(now) is None]
        refusals: list[Unavailable] = []
        for index, pod in enumerate(pods, 1):
            try:
                return await self._load(pod, record, prove=prove, deadline=deadline), pods[index:]
            except Unavailable as exc:
                refusals.append(exc)
        if len(refusals) == 1:
            raise refusals[0]
        if refusals:  # each has a reason of its own
            again_s = min((each.retry_after_s for each in refusals if each.retry_after_s is not None), default=None)
            message = clip("; ".join(each.message for each in refusals), _TEXT_MAX)
            kind = type(refusals[0]) if len({type(each) for each in refusals}) == 1 else Unavailable
            raise kind(message, model=record.name, version=record.version, retry_after_s=again_s)
        raise NoPodAvailable(
            f"no pod can load {record.name} {record.version} now: {self._pods.troubles(spec)}",
            model=record.name,
            version=record.version,
        )

    async def _try(self, pod: Pod, record: VersionRecord, deadline: Deadline) -> PodLoad | None:
        try:
            return await self._load(pod, record, prove=False, deadline=deadline)
        except MarwayError as exc:
            _log.warning("%s %s was not loaded ahead: %s", record.name, record.version, exc.message)
            return None

    async def _load(self, pod: Pod, record: VersionRecord, *, prove: bool, deadline: Deadline) -> PodLoad:
        report = await self._api.load(pod, record.name, record.version, prove=prove, deadline=deadline)
        return PodLoad(pod, report, await self._prove(f"pod {pod.name}", record, report) if prove else None)

    async def _prove(self, where: str, record: VersionRecord, report: LoadReport) -> Proof:
        if report.differences:
            raise _differs(where, record, report)
        if report.golden_sha256 != record.golden_sha256:
            raise MarwayError(
                f"{where} compared other golden answers than those of {record.name} {record.version}",
                model=record.name,
                version=record.version,
            )
        proof = Proof(
            kind="pod",
            archive_sha256=record.archive.sha256,
            server=report.server,
            server_versions=dict(report.server_versions),
            golden_sha256=record.golden_sha256,
            duration_s=report.duration_s,
            at=utc_now(),
            by=where,
        )
        await self._writer.call(self._writer.registry.prove, proof)
        return proof


def _differs(where: str, record: VersionRecord, report: LoadReport) -> AnswersDiffer:
    lines = "; ".join(report.differences[:_LINES_MAX])
    more = len(report.differences) - _LINES_MAX
    return AnswersDiffer(
        f"{record.name} {record.version} gave {len(report.differences)} of its {report.examples} golden answers "
        f"otherwise {'in the' if where == GATEWAY else 'on'} {where}: {lines}"
        + (f"; and {more} more" if more > 0 else ""),
        model=record.name,
        version=record.version,
    )


def _version(registry: Registry, name: str, version: str) -> Resolved:
    """Read a version, and how it is served. Blocks."""
    record = registry.resolve(Reference(name, version))
    return Resolved(record, registry.state(name).serving_for(record), None)
