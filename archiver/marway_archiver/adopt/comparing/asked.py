"""All that the old server is asked for: which requests, for which versions, and the golden examples they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marway.errors import MarwayError
from marway.records import Signature
from marway_archiver.adopt.comparing.calling import Server
from marway_archiver.adopt.comparing.clients import client_lines
from marway_archiver.adopt.comparing.comparing import Model, models_asked
from marway_archiver.adopt.comparing.documents import lines_document, requests_document
from marway_archiver.adopt.comparing.examples import Golden, golden_of_requests
from marway_archiver.adopt.comparing.requests import Requests, read_requests
from marway_archiver.adopt.comparing.routes import default_route
from marway_archiver.adopt.comparing.sampling import sample_requests
from marway_archiver.adopt.comparing.sent import OldRequest
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.archives import check_archive
from marway_archiver.proving.examples import Example

__all__ = ["Asked", "asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked.

    Attributes:
        found: What the source holds.
        requests: All of them.
        models: The requests by the version that they ask.
        unknown: How many ask for none of these, by what they name.
        old: The old server; None where what a file recorded counts.
        golden: By `NAME/VERSION`.
        notes: One sentence each on versions that nothing is asked of.
    """

    found: Found
    requests: Requests
    models: tuple[Model, ...]
    unknown: Mapping[str, int]
    old: Server | None
    golden: Mapping[str, Golden] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def examples(self) -> dict[str, tuple[Example, ...]]:
        """Golden examples by `NAME/VERSION`."""
        return {name: each.examples for name, each in self.golden.items() if each.examples}

    @property
    def signatures(self) -> dict[str, Signature]:
        """By `NAME/VERSION`, the tensors that clients of v2 know."""
        return {name: each.signature for name, each in self.golden.items() if each.signature is not None}

    @property
    def comparable(self) -> bool:
        """Whether there is anything that Marway's answers can be compared with."""
        return any(self.old is not None or one.answer is not None for each in self.models for one in each.requests)

    def labelled(self, labels: Mapping[str, tuple[str, ...]]) -> Asked:
        """Return the same with the labels that point at each version, by `NAME/VERSION`."""
        models = tuple(replace(each, labels=labels.get(each.found.reference, ())) for each in self.models)
        return replace(self, models=models)

    def document(self, *, gateway: str | None) -> dict[str, Any]:
        """Return what a report says of it: the requests, and the lines that a client changes."""
        old = None if self.old is None else self.old.url
        lines = client_lines(self.found, self.models, old=old, gateway=gateway)
        return {"requests": requests_document(self.requests, self.golden), "client": lines_document(lines)}


def asked(
    found: Found,
    file: Path | None,
    old: Server | None,
    *,
    most: int = 20,
    step: Callable[[str], None] = lambda _: None,
) -> Asked:
    """Read requests, or find some where there is no file, and have the old server answer those that become golden.

    Without a file they are the golden inputs that archives carry, and some made up by the metadata of a v2 server.

    Args:
        found: What the source holds.
        file: Of requests; None for none.
        old: The old server, if it still runs.
        most: Golden examples of a version at most; 0 for none.
        step: Told what is done.

    Raises:
        InvalidInput: The file cannot be read.
        Unavailable: The old server does not listen.
    """
    if old is not None:
        old.check_there()
    notes: list[str] = []
    if file is not None:
        protocols = {each.endpoint.model: each.endpoint.protocol for each in found.models if each.problem is None}
        requests = read_requests(file, protocols)
    else:
        requests = Requests(tuple(_own(found, old, notes)))
    models, unknown = models_asked(found.models, requests.found)
    asked_of = {each.found.reference for each in models}
    if file is not None:
        silent = [each.reference for each in found.models if each.problem is None and each.reference not in asked_of]
        notes += [f"{file} has no request for {each}" for each in silent]
    golden = {}
    for each in models if most else ():
        if each.found.archive is not None and _carried(each.found):
            notes.append(f"{each.found.reference} carries golden examples of its own, which it keeps")
            continue
        step(f"{each.found.reference}: golden examples")
        golden[each.found.reference] = golden_of_requests(each.found, each.requests, old, most=most)
    return Asked(found, requests, models, unknown, old, golden, tuple(notes))


def _own(found: Found, old: Server | None, notes: list[str]) -> list[OldRequest]:
    """Return requests for versions of which nobody has any."""
    requests: list[OldRequest] = []
    for model in found.models:
        if model.problem is not None:
            continue
        made, why = _carried(model), None
        if not made and old is not None:
            made, why = sample_requests(old, model)
        if why is not None:
            notes.append(f"nothing was asked of {model.reference}: {why}")
        requests += made
    return requests


def _carried(model: FoundModel) -> tuple[OldRequest, ...]:
    """Return the golden inputs that a `.mar` carries, as requests of the old server."""
    if model.archive is None:
        return ()
    try:
        examples = check_archive(model.archive).examples
    except MarwayError:  # said when it is published
        return ()
    endpoint = model.endpoint
    if endpoint.protocol != "torchserve":
        return ()
    route = default_route("torchserve", endpoint.model, endpoint.version)
    return tuple(
        OldRequest(f"example {number} of {model.reference}", route, each.data, each.content_type)
        for number, each in enumerate(examples, 1)
    )
