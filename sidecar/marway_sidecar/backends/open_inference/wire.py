"""The way to one server of the Open Inference Protocol, by REST or by gRPC (`rest`, `grpc_wire`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from marway.deadline import Deadline
from marway.records import Signature, TensorSpec
from marway_http.tensors.v2_to_rest import RestBody
from marway_sidecar.backends.base import ServedModel

__all__ = [
    "MANAGEMENT_TIMEOUT_S",
    "Body",
    "Indexed",
    "Known",
    "Refused",
    "ServerFacts",
    "Wire",
    "signature_of",
]

MANAGEMENT_TIMEOUT_S: Final = 30.0


class Refused(Exception):
    """The server would not do what it was asked; the text is its own.

    Args:
        status: Of HTTP, or what stands for it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ServerFacts(NamedTuple):
    """What a server says of itself: its name, such as `triton`, its version, and which extensions it has."""

    name: str
    version: str
    extensions: frozenset[str]

    @property
    def binary(self) -> bool:
        """Whether it takes binary tensors over REST."""
        return "binary_tensor_data" in self.extensions


class Indexed(NamedTuple):
    """One version of a model in a server's index; ``state`` is READY, LOADING, UNLOADING, UNAVAILABLE, or nothing."""

    version: str
    state: str
    reason: str


class Body(NamedTuple):
    """A request over REST; None as ``header_length``: it is all JSON, else so many bytes of it are."""

    body: bytes
    header_length: int | None


@dataclass(frozen=True, slots=True)
class Configured:
    """What a server's own configuration of a model says; of a server that has none, what is usual.

    Attributes:
        decoupled: Whether it answers in pieces, which Triton sends over gRPC's stream alone.
        rows_max: Most rows of one request, where the first dimension of each tensor is the rows (Triton's
            `max_batch_size`); 1 where it is not.
        instances: How many requests it runs side by side.
    """

    decoupled: bool = False
    rows_max: int = 1
    instances: int = 1


@dataclass(frozen=True, slots=True)
class Known:
    """A version as the server knows it.

    Attributes:
        model: It itself, as it was loaded.
        called: The server's own name of the model.
        number: The server's own version of it; "" is what it takes by itself.
        signature: What it takes and gives, by the server's word.
        platform: What runs it there.
        configured: What its configuration there says.
    """

    model: ServedModel
    called: str
    number: str = ""
    signature: Signature = field(default_factory=Signature)
    platform: str = ""
    configured: Configured = Configured()

    @property
    def rows_max(self) -> int:
        """Most rows of a request that is made of several."""
        return min(self.model.batch_rows, self.configured.rows_max)


class Wire(ABC):
    """Calls to one server. Every method raises `RuntimeDown` when it does not answer, and `NotSent` when it took no
    connection; those that are no predictions raise `Refused` when it would not do what was asked.
    """

    @abstractmethod
    async def facts(self, *, timeout_s: float) -> ServerFacts:
        """Return what the server says of itself."""

    @abstractmethod
    async def index(self, *, timeout_s: float = MANAGEMENT_TIMEOUT_S) -> Mapping[str, Sequence[Indexed]]:
        """Return the versions of each model that the server has or could load, by name."""

    @abstractmethod
    async def load(self, called: str, *, timeout_s: float) -> None:
        """Load a model and return when it is, or is not."""

    @abstractmethod
    async def unload(self, called: str) -> None:
        """Begin to unload a model."""

    @abstractmethod
    async def metadata(self, called: str, number: str) -> Mapping[str, Any] | None:
        """Return what the server says of a model that it has, as its REST says it; None when it has not."""

    @abstractmethod
    async def configured(self, called: str, number: str) -> Configured:
        """Return what the server's configuration of a model says."""

    @abstractmethod
    async def infer(self, known: Known, request: Body, deadline: Deadline) -> RestBody:
        """Return the response to a request; raises as `ModelServer.predict` does."""

    @abstractmethod
    def stream(self, known: Known, request: Body, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        """Yield the responses to a request, each as JSON, a newline and its binary tensors; raises as `infer`.

        An error of the model's behind other responses is one of them (`marway_http.tensors.v2_to_rest.error_piece`).
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections; calls under way are cut off."""


def signature_of(metadata: Mapping[str, Any]) -> Signature:
    """Return what a server says of a model's inputs and outputs; of one that does not say them, none."""
    return Signature(inputs=_specs(metadata.get("inputs")), outputs=_specs(metadata.get("outputs")))


def _specs(described: Sequence[Mapping[str, Any]] | None) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=str(each.get("name")),
            datatype=str(each.get("datatype")),
            shape=tuple(int(side) for side in each.get("shape") or ()),
        )
        for each in described or ()
    )
