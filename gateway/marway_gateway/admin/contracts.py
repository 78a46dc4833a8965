"""Contracts of consumers on a pod: which a version keeps, and what a label's version answers now."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from marway.answers.contracts import answer_from_body, broken_by, check_expected
from marway.answers.golden import GoldenAnswer
from marway.deadline import Deadline
from marway.errors import ContractBroken, DeadlineExceeded, MarwayError, Unavailable
from marway.protection.contracts import INPUT_BYTES_MAX, BrokenContract, Contract, ContractReport
from marway.protection.missing import contracts_unproved
from marway.records import Proof, VersionRecord, utc_now
from marway.refs import Reference, check_model_id, new_ulid
from marway.registry import Change, Registry
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.headers import REQUEST_ID, Outcome
from marway.wire.problems import parse_problem
from marway_gateway.admin.loading import Loader, PodLoad
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.http.body import RequestBody
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import AttemptFailed, read_within

__all__ = ["ContractChecks"]

_ANSWER_BYTES_MAX: Final = 4 * INPUT_BYTES_MAX
_AGAIN_S: Final = 0.2
"""Until a pod that was busy is asked again."""
_SHOWN: Final = 5


class ContractChecks:
    """Has versions answer what consumers rely on.

    Args:
        loader: Loads versions first.
        upstream: Asks pods.
        writer: Reads contracts, and stores that they were kept.
    """

    def __init__(self, loader: Loader, upstream: Upstream, writer: RegistryWriter) -> None:
        self._loader = loader
        self._upstream = upstream
        self._writer = writer

    async def keep(self, load: PodLoad, record: VersionRecord, label: str, *, deadline: Deadline) -> ContractReport:
        """Have a version that was loaded asked those contracts of a label of which nothing is proved yet.

        Raises:
            ContractBroken: It breaks one; the message names the consumer.
            Unavailable, DeadlineExceeded: The pod could not answer, which says nothing of the version.
        """
        wanted, current = await self._writer.call(_unproved, self._writer.registry, record, label)
        report = await self._asked(load, record, wanted, deadline)
        if report.broken:
            raise _broken(report, record, label, current)
        return report

    async def check(self, model: str, version: str, *, deadline: Deadline | None) -> ContractReport:
        """Load a version where its requests would go, and have it asked all contracts of the model, proved or not.

        Raises:
            MarwayError: As loading raises; `Unavailable` and `DeadlineExceeded` say nothing of the version.
        """
        record, serving = await self._writer.call(_found, self._writer.registry, model, version)
        contracts = await self._writer.call(self._writer.registry.contracts, record.name)
        if not contracts:
            return ContractReport(version=record.version)
        load, deadline = await self._loaded(record, serving, deadline)
        return await self._asked(load, record, contracts, deadline)

    async def answer_of(
        self, model: str, reference: str, data: bytes, content_type: str, *, deadline: Deadline | None
    ) -> tuple[VersionRecord, GoldenAnswer]:
        """Return what a label's version, or a version, answers to a request now.

        Raises:
            MarwayError: As loading raises, or as the version's own failure.
        """
        record, serving = await self._writer.call(_found, self._writer.registry, model, reference)
        load, deadline = await self._loaded(record, serving, deadline)
        return record, await self._answer(load, record, data, content_type, deadline)

    async def add(self, model: str, contract: Contract, *, op_id: str | None) -> tuple[str, Change]:
        """Add a contract, in place of the one of the same consumer and name.

        Raises:
            InvalidInput: It cannot be one.
            StateConflict: The model has as many as it can have.
        """
        check_expected(contract)
        return await self._writer.change(_added, model, self._writer.registry, contract, op_id)

    async def _loaded(
        self, record: VersionRecord, serving: ServingSettings, deadline: Deadline | None
    ) -> tuple[PodLoad, Deadline]:
        deadline = deadline or Deadline.after(serving.load_timeout_s)
        loads = await self._loader.load(record, serving, prove=False, pod=None, deadline=deadline)
        return loads[0], deadline

    async def _asked(
        self, load: PodLoad, record: VersionRecord, contracts: Sequence[Contract], deadline: Deadline
    ) -> ContractReport:
        """Ask for every contract; what was kept is stored, also where another one was broken."""
        if not contracts:
            return ContractReport(version=record.version)
        began = time.monotonic()
        found: list[BrokenContract] = []
        kept: list[Contract] = []
        for each in contracts:  # one after the other: callers of the pod are not to wait for it
            answer = await self._answer(load, record, each.input, each.content_type, deadline)
            difference = await asyncio.to_thread(broken_by, each, answer)
            if difference is None:
                kept.append(each)
            else:
                found.append(BrokenContract(consumer=each.consumer, name=each.name, difference=difference))
        if kept:
            await self._proved(load, record, kept, time.monotonic() - began)
        return ContractReport(
            version=record.version,
            pod=load.where,
            contracts=Counter(each.consumer for each in contracts),
            broken=tuple(found),
            proved=not found,
        )

    async def _proved(self, load: PodLoad, record: VersionRecord, kept: Sequence[Contract], duration_s: float) -> None:
        pod = load.pod
        proof = Proof(
            kind="contracts",
            archive_sha256=record.archive.sha256,
            server=load.report.server,
            contracts=tuple(each.sha256 for each in kept),
            duration_s=duration_s,
            at=utc_now(),
            by=load.where if pod is None else f"pod {pod.name}",
        )
        await self._writer.call(self._writer.registry.prove, proof)

    async def _answer(
        self, load: PodLoad, record: VersionRecord, data: bytes, content_type: str, deadline: Deadline
    ) -> GoldenAnswer:
        if (pod := load.pod) is None:
            serving = await self._writer.call(_serving, self._writer.registry, record)
            graph = Resolved(record, serving, None)
            return await self._loader.graphs.answer(graph, data, content_type, deadline=deadline)
        headers = {"content-type": content_type, REQUEST_ID: f"contract-{new_ulid()}"}
        while True:
            body = RequestBody.opened(data, max_bytes=INPUT_BYTES_MAX)
            try:
                async with asyncio.timeout(deadline.left_s()):
                    reply = await self._upstream.predict(
                        pod, record.name, record.version, headers=headers, body=body, deadline=deadline
                    )
                    answer = reply.data
                    if answer is None:
                        try:
                            answer = await read_within(reply.chunks(), _ANSWER_BYTES_MAX, reply.close)
                        finally:
                            reply.close()
            except TimeoutError as exc:
                raise DeadlineExceeded(f"pod {pod.name} did not answer every contract in time: {record.name} "
                                       f"{record.version} was not judged") from exc  # fmt: skip
            except AttemptFailed as exc:
                raise Unavailable(f"pod {pod.name} {exc.why}: the contracts were not judged; try again") from exc
            if reply.outcome == Outcome.ANSWERED:
                named = next(
                    (value.decode("latin-1") for name, value in reply.headers if name == b"content-type"), None
                )
                return answer_from_body(answer, named, status=reply.status)
            error = parse_problem(answer, status=reply.status, retry_after_s=reply.retry_after_s)
            if reply.outcome in (Outcome.MODEL_ERROR, Outcome.WORKER_DIED):
                return GoldenAnswer(status=reply.status, kind="error", value=error.message)
            if reply.outcome != Outcome.NOT_ACCEPTED or deadline.left_s() <= _AGAIN_S:
                raise type(error)(f"pod {pod.name}: {error.message}", model=record.name, version=record.version)
            await asyncio.sleep(_AGAIN_S)


def _broken(report: ContractReport, record: VersionRecord, label: str, current: str | None) -> MarwayError:
    """Return the error of a move that contracts forbid; it names whose they are."""
    shown = "; ".join(f"{each.consumer} (contract {each.name}: {each.difference})" for each in report.broken[:_SHOWN])
    more = len(report.broken) - _SHOWN
    stays = f"{label} stays at {current}" if current is not None else f"{label} is not set"
    return ContractBroken(
        f"{record.name} {record.version} breaks what consumers rely on: {shown}"
        + (f"; and {more} more" if more > 0 else "")
        + f"; {stays}; agree with them, or, if that is meant, move it with --force",
        model=record.name,
        version=record.version,
    )


def _found(registry: Registry, model: str, reference: str) -> tuple[VersionRecord, ServingSettings]:
    """Read a version's record, and how it is served. Blocks."""
    record = registry.resolve(Reference(registry.find(check_model_id(model)), reference))
    return record, registry.state(record.name).serving_for(record)


def _serving(registry: Registry, record: VersionRecord) -> ServingSettings:
    """Read how a version is served. Blocks."""
    return registry.state(record.name).serving_for(record)


def _unproved(registry: Registry, record: VersionRecord, label: str) -> tuple[list[Contract], str | None]:
    """Read what a label's next version is to be asked yet, and where the label is. Blocks."""
    state = registry.state(record.name)
    current = state.labels.get(label)
    if not state.contracts or current == record.version:
        return [], current
    left = set(contracts_unproved(state, registry.proofs(record.archive.sha256, skip_damaged=True), label))
    contracts = registry.contracts_of(record.name, state, label=label) if left else []
    return [each for each in contracts if each.key in left], current


def _added(name: str, registry: Registry, contract: Contract, op_id: str | None) -> Change:
    return registry.add_contract(name, contract, op_id=op_id)
