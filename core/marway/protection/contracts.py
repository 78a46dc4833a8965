"""What a consumer of a model relies on: a request of its own, and what of the answer must stay as it is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import Field, ValidationError

from marway.errors import InvalidInput, clip
from marway.stored import Extensible, Frozen

__all__ = [
    "CONTRACTS_MAX",
    "INPUT_BYTES_MAX",
    "BrokenContract",
    "Contract",
    "ContractChange",
    "ContractRef",
    "ContractReport",
    "check_consumer",
    "check_contract_name",
    "check_field",
    "consumers_of",
    "contract_key",
    "contracts_for",
]

CONTRACTS_MAX: Final = 100
"""Most contracts of a model: each is asked at every release, and all readers of the state carry their names."""
INPUT_BYTES_MAX: Final = 1024 * 1024
"""Largest request of a contract, and largest expected answer, in bytes."""
FIELDS_MAX: Final = 50
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_RULE: Final = "1 to 63 letters, digits, '.', '_' or '-', starting and ending with a letter or digit"

Match = Literal["values", "types"]


class ContractRef(Extensible):
    """A contract, in `ModelState.contracts` under its key `consumer/name`.

    Attributes:
        id: ULID of the object that holds it: `contracts/<model>/<id>.json`.
        sha256: Digest of what it says.
        labels: Which labels it holds for; none stands for all.
    """

    id: str
    sha256: str
    labels: tuple[str, ...] = ()


class Contract(Frozen):
    """One contract: `contracts/<model>/<ulid>.json`, create-only.

    Attributes:
        consumer: Who relies on it: a team, a service.
        name: What the consumer calls it.
        input_b64: The request's body, base64.
        content_type: Its content type.
        status: The answer's HTTP status.
        kind: Whether ``value`` is JSON, text, or base64 of bytes.
        value: The answer that is expected.
        fields: JMESPaths of what must be as it was; none stands for the whole answer.
        match: `values`: equal, numbers within the tolerance; `types`: the same fields of the same types.
        tolerance: How far numbers may lie apart, relative and absolute.
        labels: Which labels it holds for; none stands for all.
        from_version: Which version's answer it is; None where the consumer gave it.
        by, at, note: Who added it, when and why.
    """

    format: Literal[1] = 1
    consumer: str
    name: str
    input_b64: str
    content_type: Annotated[str, Field(max_length=256, pattern=r"^[\x20-\x7e]+$")]
    status: Annotated[int, Field(ge=100, le=599)] = 200
    kind: Literal["json", "text", "bytes"]
    value: Any
    fields: tuple[str, ...] = ()
    match: Match = "values"
    tolerance: Annotated[float, Field(ge=0, le=1)] = 1e-4
    labels: tuple[str, ...] = ()
    from_version: str | None = None
    by: str
    at: datetime
    note: str | None = None

    @classmethod
    def made(cls, data: bytes, **facts: Any) -> Contract:
        """Return a contract with a request's body, from what somebody gave.

        Raises:
            InvalidInput: Something in it cannot be.
        """
        try:
            return cls.model_validate({"input_b64": base64.b64encode(data).decode(), **facts})
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(f"a contract cannot have that {field}: {clip(first['msg'], 200)}") from exc

    @property
    def key(self) -> str:
        return contract_key(self.consumer, self.name)

    @property
    def input(self) -> bytes:
        return base64.b64decode(self.input_b64)

    @property
    def sha256(self) -> str:
        """Digest of what it says, whoever added it and when: the same again needs no new proof."""
        document = self.model_dump(mode="json", exclude={"by", "at", "note", "from_version", "labels"})
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """Return it as JSON, as programs get it: with the size of the request in place of the request."""
        document = self.model_dump(mode="json", exclude={"format", "input_b64", "value"})
        return {**document, "input_bytes": len(self.input), "expected": self.value}


class ContractChange(Frozen):
    """What one change did to a model's contracts, in its history entry, which is of the kind `serving` and names none.

    So readers from before there were contracts take it for serving settings of which none was changed.
    """

    action: Literal["add", "remove"]
    consumer: str
    name: str
    labels: tuple[str, ...] = ()


class BrokenContract(Frozen):
    """A contract that a version breaks, and how, in one line."""

    consumer: str
    name: str
    difference: str


class ContractReport(Frozen):
    """How a version answered the contracts of a model on a pod.

    Attributes:
        version: The version.
        pod: Which pod; None where none was asked, as there were none or all had been kept before.
        contracts: How many were asked, by consumer.
        broken: Those that it breaks.
        proved: Whether it is stored that the version keeps them all.
    """

    version: str
    pod: str | None = None
    contracts: Mapping[str, int] = Field(default_factory=dict)
    broken: tuple[BrokenContract, ...] = ()
    proved: bool = False


def contract_key(consumer: str, name: str) -> str:
    """Return what a contract is called in the state."""
    return f"{consumer}/{name}"


def contracts_for(contracts: Mapping[str, ContractRef], label: str | None) -> dict[str, ContractRef]:
    """Return the contracts that hold for a label, or all for None, by key in order."""
    return {
        key: ref for key, ref in sorted(contracts.items()) if label is None or not ref.labels or label in ref.labels
    }


def consumers_of(contracts: Iterable[str]) -> list[str]:
    """Return whose contracts these keys are, in order."""
    return sorted({key.partition("/")[0] for key in contracts})


def check_consumer(text: str) -> str:
    """Return ``text`` if it can be a consumer's name, else raise `InvalidInput`."""
    return _checked(text, "a consumer")


def check_contract_name(text: str) -> str:
    """Return ``text`` if it can be a contract's name, else raise `InvalidInput`."""
    return _checked(text, "a contract's name")


def check_field(text: str) -> str:
    """Return ``text`` if it is a JMESPath, else raise `InvalidInput`."""
    try:
        jmespath.compile(text)
    except JMESPathError as exc:
        why = clip(" ".join(str(exc).split()), 200)
        raise InvalidInput(f"{clip(text, 80)!r} is no JMESPath, such as label or scores[].name: {why}") from exc
    return text


def _checked(text: str, what: str) -> str:
    if _NAME.fullmatch(text):
        return text
    raise InvalidInput(f"{clip(text, 80)!r} cannot be {what}: use {_RULE}")
