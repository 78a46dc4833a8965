"""What a source of models holds, in terms that hold for every kind of server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from marway.serving import ServingSettings

__all__ = ["Endpoint", "Found", "FoundModel", "FoundWorkflow", "Kind", "Outcome", "Protocol", "Setting"]

Kind = Literal["kserve", "mlserver", "modelmesh", "torchserve", "triton"]
"""Which platform a source is of."""
Protocol = Literal["torchserve", "v1", "v2"]
"""How its clients ask: `POST /predictions/M`, `POST /v1/models/M:predict`, `POST /v2/models/M/infer`."""
Outcome = Literal["kept", "changed", "elsewhere", "none"]
"""What becomes of a setting: the same; nearly the same, as is said; it is said elsewhere, as is said; nothing."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that a source says, and what becomes of it: nothing is left out in silence.

    Attributes:
        name: What it is called there, such as `batchSize` or `spec.predictor.minReplicas`.
        value: What it says there, as one line; `(hidden)` for a secret.
        outcome: What becomes of it.
        becomes: One phrase: what it is in Marway, or what to do, or why there is nothing like it.
    """

    name: str
    value: str
    outcome: Outcome
    becomes: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How clients ask the old server for a model.

    Attributes:
        protocol: Its way.
        model: What the old server calls the model.
        version: The version that its paths have to name to get this one; None where the path without one does.
        url: Where the source says that it listens, such as ``http://127.0.0.1:8080``; None where it does not say.
        host: The `Host` that a request needs where many services are behind one address (KServe); None for none.
    """

    protocol: Protocol
    model: str
    version: str | None = None
    url: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One version of one model.

    Attributes:
        name: What it will be called: by the rules of `marway.refs`; ``endpoint.model`` is what it was called.
        version: Likewise.
        endpoint: How clients ask the old server for it.
        backend: The kind of server that its record will name, such as `torchserve` or `open-inference`.
        archive: Its `.mar`; None where it is a directory.
        directory: The directory that a bundle will be made of; None where it is an archive.
        leave_out: Directories right below ``directory`` that are other versions.
        add_files: Files that the bundle gets beside those of ``directory``, by their names in it: what the old platform
            made up for the server, such as a configuration.
        labels: That will point at it.
        serving: Settings of its record; only fields that are set there were said by the source.
        settings: What the source says of this model.
        warnings: One sentence each on what may surprise.
        problem: Why it cannot be taken over, as one sentence with what to do; None where it can.
    """

    name: str
    version: str
    endpoint: Endpoint
    backend: str = "torchserve"
    archive: Path | None = None
    directory: Path | None = None
    leave_out: tuple[str, ...] = ()
    add_files: Mapping[str, bytes] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    serving: ServingSettings = field(default_factory=ServingSettings)
    settings: tuple[Setting, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def reference(self) -> str:
        """`NAME/VERSION`."""
        return f"{self.name}/{self.version}"


class FoundWorkflow(NamedTuple):
    """A workflow of TorchServe's, a `.war`, and the directory of the archives that it names."""

    path: Path
    store: Path


@dataclass(frozen=True, slots=True)
class Found:
    """What a source holds.

    Attributes:
        kind: Which platform it is of.
        source: Where it is, as it was given.
        models: In the order of their names; versions of one in the order in which they are to be published.
        settings: What the source says of the server as a whole.
        notes: One sentence each: what was read, what was passed over and why.
        workflows: Of TorchServe, which become graphs.
    """

    kind: Kind
    source: str
    models: tuple[FoundModel, ...]
    settings: tuple[Setting, ...] = ()
    notes: tuple[str, ...] = ()
    workflows: tuple[FoundWorkflow, ...] = ()
