"""Admin routes of contracts: what consumers of a model rely on, and whether a version keeps it."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from marway import errors
from marway.answers.contracts import expected_answer
from marway.errors import InvalidInput
from marway.protection.contracts import Contract, ContractReport
from marway.records import utc_now
from marway_gateway.admin.labels import CHANGE_ERRORS, LOAD_ERRORS
from marway_gateway.admin.parameters import Caller, CallerOf, Model, NoteOf, TimeoutOf, deadline_of
from marway_gateway.admin.views import AdminView, ChangeView, Note
from marway_gateway.gateway import CurrentGateway
from marway_gateway.json_models import JsonValue, examples
from marway_gateway.openapi import problems

__all__ = ["contracts_router"]

Consumer = Annotated[str, Path(description="Who relies on it.", examples=["search"])]
Name = Annotated[str, Path(description="What the consumer calls the contract.", examples=["alarm"])]
Version = Annotated[str, Path(description="A version, or a label.", examples=["1.1"])]

_CONTRACT: Final[JsonDict] = {
    "consumer": "search",
    "name": "alarm",
    "content_type": "text/plain",
    "input_bytes": 24,
    "expected": {"label": "alarm", "score": 0.98},
    "kind": "json",
    "status": 200,
    "fields": ["label"],
    "match": "values",
    "tolerance": 0.0001,
    "labels": [],
    "from_version": "1.0",
    "by": "ana@laptop",
    "at": "2026-11-30T12:00:00Z",
    "note": None,
}


class ContractPut(AdminView):
    """A request of a consumer, and what of the answer must stay as it is."""

    model_config = examples(
        {
            "input_b64": "d2FrZSBtZSBhdCBzZXZlbg==",
            "content_type": "text/plain",
            "from_label": "PROD",
            "fields": ["label"],
        }
    )

    input_b64: str = Field(description="The request's body, base64; at most 1 MiB.")
    content_type: str = Field(default="application/json", max_length=256, pattern=r"^[\x20-\x7e]+$")
    expect_b64: str | None = Field(default=None, description="The answer that is expected, base64.")
    from_label: str | None = Field(
        default=None, max_length=32, description="Expect what this label's version answers now; a pod is asked."
    )
    status: int | None = Field(
        default=None, ge=100, le=599, description="The status that is expected with `expect_b64`; 200 by default."
    )
    fields: tuple[str, ...] = Field(
        default=(), max_length=50, description="JMESPaths of what must be as it was; none stands for the whole answer."
    )
    match: Literal["values", "types"] = Field(
        default="values", description="`values`: the same, numbers within the tolerance; `types`: of the same types."
    )
    tolerance: float = Field(default=1e-4, ge=0, le=1, description="How far numbers may lie apart.")
    labels: tuple[str, ...] = Field(
        default=(), max_length=20, description="Labels that it holds for; none stands for all."
    )
    note: Note = None


class ContractView(AdminView):
    """What a consumer relies on."""

    model_config = examples(_CONTRACT)

    consumer: str
    name: str
    content_type: str
    input_bytes: int
    expected: JsonValue
    kind: Literal["json", "text", "bytes"] = Field(description="What `expected` is: JSON, text, or base64 of bytes.")
    status: int
    fields: tuple[str, ...]
    match: Literal["values", "types"]
    tolerance: float
    labels: tuple[str, ...]
    from_version: str | None = Field(description="Whose answer it is; null where the consumer gave it.")
    by: str
    at: datetime
    note: str | None

    @classmethod
    def of(cls, contract: Contract) -> ContractView:
        """Return the view of a contract."""
        return cls.model_validate(contract.document())


class ContractReportView(ContractReport):
    """How a version answered what consumers rely on."""

    model_config = ConfigDict(
        **examples({"version": "1.1", "pod": "pod-0", "contracts": {"search": 3}, "broken": [], "proved": True})
    )


def contracts_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/models/{model}", tags=["contracts"])

    @router.get(
        "/contracts",
        summary="What consumers of a model rely on",
        responses=problems(errors.InvalidReference, errors.ModelNotFound, errors.RegistryUnavailable),
    )
    async def list_contracts(model: Model) -> list[ContractView]:
        writer = current().writer
        return [ContractView.of(each) for each in await writer.call(writer.registry.contracts, model)]

    @router.put(
        "/contracts/{consumer}/{name}",
        summary="Add what a consumer relies on, or replace it",
        responses=problems(*CHANGE_ERRORS, *LOAD_ERRORS),
    )
    async def put_contract(
        model: Model, consumer: Consumer, name: Name, put: ContractPut, caller: CallerOf, timeout: TimeoutOf
    ) -> ContractView:
        """From then on no label moves to a version that answers otherwise, and the refusal names the consumer."""
        gateway = current()
        checks = gateway.releaser.contracts
        data = _decoded(put.input_b64, "input_b64")
        if (put.expect_b64 is None) == (put.from_label is None):
            raise InvalidInput("give either the answer that is expected (expect_b64) or from_label, whose answer it is")
        facts: dict[str, Any] = {"status": put.status or 200, "from_version": None}
        if put.from_label is not None:
            if put.status is not None:
                raise InvalidInput("status goes with expect_b64: from_label takes what the label's version answers")
            record, answer = await checks.answer_of(
                model, put.from_label, data, put.content_type, deadline=deadline_of(timeout, gateway.settings)
            )
            facts = {"status": answer.status, "from_version": record.version}
        else:
            answer = expected_answer(_decoded(put.expect_b64 or "", "expect_b64"))
        contract = _contract(consumer, name, put, data, caller, kind=answer.kind, value=answer.value, **facts)
        await checks.add(model, contract, op_id=caller.op_id)
        return ContractView.of(contract)

    @router.delete(
        "/contracts/{consumer}/{name}",
        summary="Remove what a consumer relied on",
        responses=problems(*CHANGE_ERRORS),
    )
    async def remove_contract(
        model: Model,
        consumer: Consumer,
        name: Name,
        caller: CallerOf,
        note: NoteOf = None,
    ) -> ChangeView:
        writer = current().writer
        found, change = await writer.change(
            writer.registry.remove_contract, model, consumer, name, note=note, by=caller.by, op_id=caller.op_id
        )
        return ChangeView.of(found, change.entry)

    @router.post(
        "/versions/{version}/contracts",
        summary="Ask a version what consumers rely on",
        responses=problems(*CHANGE_ERRORS, *LOAD_ERRORS, errors.LabelNotFound),
    )
    async def check_contracts(model: Model, version: Version, timeout: TimeoutOf) -> ContractReportView:
        """A pod loads it and is asked every contract of the model; which it keeps is stored, and no label moves."""
        gateway = current()
        report = await gateway.releaser.contracts.check(model, version, deadline=deadline_of(timeout, gateway.settings))
        return ContractReportView.model_validate(report.model_dump())

    return router


def _contract(
    consumer: str, name: str, put: ContractPut, data: bytes, caller: Caller, *, kind: str, **facts: Any
) -> Contract:
    if kind == "error":
        raise InvalidInput(f"the version failed: {facts['value']}; give the answer that is expected (expect_b64)")
    return Contract.made(
        data,
        consumer=consumer,
        name=name,
        content_type=put.content_type,
        kind=kind,
        fields=put.fields,
        match=put.match,
        tolerance=put.tolerance,
        labels=put.labels,
        by=caller.by,
        at=utc_now(),
        note=put.note,
        **facts,
    )


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput(f"{what} is no base64") from exc
