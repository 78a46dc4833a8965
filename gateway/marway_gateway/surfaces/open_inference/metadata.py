"""What a version takes and gives: by its record's signature, else by the word of a pod's server that takes tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.graphs import GRAPH_BACKEND
from marway.records import Signature, VersionRecord
from marway.resolve.resolved import Resolved
from marway.wire.headers import DESCRIBE, NOTHING
from marway.wire.request import RequestIds, new_request_id
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.call import PredictCall
from marway_gateway.surfaces.open_inference.passing import passes
from marway_gateway.surfaces.open_inference.schema import ModelMetadata, metadata_of
from marway_gateway.surfaces.servable import versions_of

__all__ = ["model_metadata"]

_BYTES_MAX = 1024 * 1024


async def model_metadata(gateway: Gateway, name: str, selector: str | None) -> ModelMetadata:
    """Return what the protocol tells of a version.

    A version whose record has no signature, and whose server knows what it takes, is loaded for that.

    Raises:
        InvalidReference, NotFound: There is no such version.
        RegistryUnavailable: The registry does not answer.
        MarwayError: A server is to be asked, and none answers.
    """
    resolved = await gateway.resolver.resolve(name, selector)
    record = resolved.record
    # A graph takes what its nodes take, which a signature says; running it would tell nothing.
    if record.backend != GRAPH_BACKEND and passes(record) and record.signature == Signature():
        record = record.model_copy(update={"signature": await _asked(gateway, resolved)})
    return metadata_of(record, await versions_of(gateway, record.name))


async def _asked(gateway: Gateway, resolved: Resolved) -> Signature:
    """Return what a version's server says of its inputs and outputs."""
    record, settings = resolved.record, gateway.settings
    ids = RequestIds(new_request_id())
    call = PredictCall(
        name=record.name,
        selector=record.version,
        headers={**ids.headers(), DESCRIBE: "1", NOTHING: "1"},
        deadline=Deadline.after(settings.default_timeout_s),
        info=RequestInfo(method="GET", path="", ids=ids),
        body=RequestBody.opened(b"", max_bytes=0),
        fresh=True,
        resolved=resolved,
    )
    with gateway.predictor.scope(call):
        answer = await gateway.predictor.predict(call)
        said = await answer.whole(max_bytes=_BYTES_MAX, too_large="the server's description of the model is too large")
    try:
        if answer.reply.status >= 400:
            raise ValueError(said.decode(errors="replace"))
        document = json.loads(said)
        return Signature(inputs=_specs(document["inputs"]), outputs=_specs(document["outputs"]))
    except (ValueError, TypeError, KeyError) as exc:
        raise _unknown(record, exc) from exc


def _specs(described: Sequence[dict[str, object]]) -> Sequence[dict[str, object]]:
    # A server may say more of a tensor, which is not the protocol's.
    return [{name: each[name] for name in ("name", "datatype", "shape")} for each in described]


def _unknown(record: VersionRecord, why: Exception) -> MarwayError:
    return MarwayError(
        f"the server of {record.name} {record.version} does not say what the version takes ({why}): publish it with a "
        "signature",
        model=record.name,
        version=record.version,
    )
