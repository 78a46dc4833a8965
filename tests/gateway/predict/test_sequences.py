"""Sequences as a gateway sees them: which pod is asked, what is found by asking, what callers of lost ones hear."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from aiohttp import web

from gateway.fakes import FakePod, running
from marway.archives.sequences import SequenceSettings
from marway.deadline import Deadline
from marway.errors import ModelError, NoPodAvailable, Overloaded, SequenceNotFound
from marway.records import Signature, TensorSpec
from marway.registry import Registry
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, decode_rows, encode_answers
from marway.wire.headers import OUTCOME, SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START, Outcome
from marway_gateway.placement.sequence_home import KeptSequence
from marway_gateway.predict.call import CandidateLost, PredictCall
from marway_gateway.predict.sequences import Sequences
from marway_gateway.transport.reply import Reply
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.registry import publish, record_of

START, GO_ON, END = {SEQUENCE_START: "true"}, {SEQUENCE_START: "false"}, {SEQUENCE_END: "true"}


@dataclass(eq=False)
class Pod:
    """A pod that keeps sequences, by the version that they are of."""

    name: str
    well: bool = True
    leaving: bool = False
    kept: dict[str, str] = field(default_factory=dict)

    def healthy(self, _: float) -> bool:
        return self.well and not self.leaving

    def hands_over(self, _: float) -> bool:
        return self.well and self.leaving


class Room:
    """What one gateway remembers, over pods of which the first in the list is every sequence's home."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = list(pods)
        self.asked: list[str] = []
        self.fails: Exception | None = None
        self.forget()

    def forget(self) -> None:
        """Go on as another gateway, which was asked nothing yet."""
        standing_in = SimpleNamespace(
            order_of=lambda spec: self.pods,
            now=lambda: 0.0,
            holding=lambda spec: [each for each in self.pods if each.well],
        )
        self.sequences = Sequences(cast("Any", standing_in), {})

    async def ask(self, call: PredictCall, resolved: Resolved) -> Reply:
        """Do what pods do."""
        at = call.sequence.pod if isinstance(call.sequence, KeptSequence) else None
        pod = next((each for each in self.pods if (each.name == at if at else each.healthy(0.0))), None)
        if pod is None or not pod.well:
            raise NoPodAvailable("no pod can take it")
        self.asked.append(f"{pod.name} {call.headers.get(SEQUENCE_START, '')}".strip())
        call.info.pod = pod.name
        if self.fails is not None:
            raise self.fails
        name, start = call.headers[SEQUENCE_ID], call.headers.get(SEQUENCE_START)
        if start == "false" and name not in pod.kept:
            raise SequenceNotFound("it is not there")
        if start == "true" or name not in pod.kept:
            pod.kept[name] = resolved.record.version
        if call.headers.get(SEQUENCE_END) == "true":
            del pod.kept[name]
        return cast("Reply", SimpleNamespace(headers=[], said=f"{pod.name} {resolved.record.version}"))

    async def send(self, name: str | None, version: str = "1.0", *, output: str = "y", **headers: str) -> str:
        """Send one request of a sequence to a label that points at a version; return who answered."""
        sent = {**({} if name is None else {SEQUENCE_ID: name}), **headers}
        signature = Signature(outputs=(TensorSpec(name=output, datatype="BYTES", shape=(-1,)),))
        record = record_of(b"x", name="m", version=version, signature=signature, sequences=SequenceSettings())
        info = SimpleNamespace(pod=None, run=None, model=None, version=None, model_id=None, serving=None, observe="off")
        body = SimpleNamespace(repeatable=True)
        call = PredictCall("m", "PROD", sent, Deadline.after(9), cast("Any", info), cast("Any", body))
        resolved = Resolved(record, ServingSettings(), "PROD")
        reply = await self.sequences.answer(call, resolved, self.ask)
        assert name is None or call.headers[SEQUENCE_ID] == name
        return cast("str", reply.said)  # type: ignore[attr-defined]  # of this test's own replies


async def test_a_sequence_stays_where_it_began() -> None:
    """Its pod is asked, also when another has become its home, and while that pod drains; new ones go elsewhere."""
    a, b = Pod("a"), Pod("b")
    room = Room(a, b)
    assert await room.send("s") == "a 1.0"
    room.pods.reverse()
    assert await room.send("s", **GO_ON) == "a 1.0"
    a.leaving = True
    assert [await room.send("s"), await room.send("t", **START), await room.send(None)] == ["a 1.0", "b 1.0", "b 1.0"]
    assert await room.send("s", **END) == "a 1.0"
    assert await room.send("s", **START) == "b 1.0"


async def test_a_sequence_stays_with_its_version() -> None:
    """When the label moves, what has begun goes on with the version before, if requests are alike; new ones begin."""
    room = Room(Pod("a"))
    await room.send("s")
    assert [await room.send("s", "1.1"), await room.send("t", "1.1")] == ["a 1.0", "a 1.1"]
    with pytest.raises(SequenceNotFound, match="its label moved to a version that takes other requests"):
        await room.send("s", "2.0", output="other")
    assert await room.send("s", "2.0", output="other") == "a 2.0"


async def test_what_another_gateway_began_is_found() -> None:
    """A gateway that remembers nothing asks those that have the version ready, and begins where nobody has it."""
    a, b = Pod("a"), Pod("b")
    room = Room(a, b)
    b.kept["s"] = "1.0"
    assert await room.send("s", **GO_ON) == "b 1.0"
    room.forget()
    assert await room.send("s") == "b 1.0"
    assert await room.send("t") == "a 1.0"
    assert room.asked[-2:] == ["b false", "a"]
    with pytest.raises(SequenceNotFound):
        await room.send("u", **GO_ON)
    assert list(a.kept) == ["t"]
    room.forget()
    room.fails = NoPodAvailable("pod b answered nothing")  # and may have it: nothing is begun elsewhere
    with pytest.raises(NoPodAvailable):
        await room.send("s")
    assert room.asked[-1] == "b false"


@pytest.mark.parametrize("lost", ["pod", "state"])
async def test_a_lost_sequence_is_told_once(lost: str) -> None:
    """With its pod or its state gone, the next request is told, whatever it says; what comes then begins anew."""
    a, b = Pod("a"), Pod("b")
    room = Room(a, b)
    await room.send("s")
    a.kept.clear()
    a.well = lost == "state"
    with pytest.raises(SequenceNotFound, match="is not there"):
        await room.send("s")
    assert await room.send("s") == ("a 1.0" if a.well else "b 1.0")
    assert room.asked[-1].endswith(" true")
    await room.send("t")
    for pod in room.pods:
        pod.kept.clear()
    for _ in range(2):
        with pytest.raises(SequenceNotFound):
            await room.send("t", **GO_ON)


async def test_what_says_nothing_of_the_state() -> None:
    """No room just now, and the model's own errors, leave a sequence where it is; a candidate gets none."""
    room = Room(Pod("a"), Pod("b"))
    for error in (ModelError("no number"), Overloaded("busy")):
        await room.send("s")
        room.fails = error
        with pytest.raises(type(error)):
            await room.send("s")
        room.fails = None
        assert await room.send("s", **GO_ON) == "a 1.0"
    call = PredictCall("m", "PROD", {}, Deadline.after(9), cast("Any", None), cast("Any", None))
    call.base = cast("Any", object())
    with pytest.raises(CandidateLost):
        await room.sequences.answer(call, cast("Any", None), room.ask)


async def keeps(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer with what headers say of sequences, in rows where rows came."""
    body = pod.requests[-1].body
    said = json.dumps({name: value for name, value in request.headers.items() if "sequence" in name}).encode()
    headers = {"content-type": "application/json", OUTCOME: Outcome.ANSWERED}
    if request.headers.get("content-type") == ROWS_CONTENT_TYPE:
        said = encode_answers([Answer(200, said, "text") for _ in decode_rows(body)])
        headers["content-type"] = ROWS_CONTENT_TYPE
    return web.Response(body=said, headers=headers)


async def test_every_surface_says_which_sequence(
    registry: Registry, tmp_path: Path, make_pod: Callable[..., Awaitable[FakePod]]
) -> None:
    """v2 over REST and gRPC and TorchServe's REST say id, start and end alike; without an id v2 refuses."""
    publish(registry, tmp_path, "adds", sequences=SequenceSettings())
    x: dict[str, Any] = {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["1"]}
    pod = await make_pod(behave=keeps)
    async with running(pod, registry=registry) as gateway:

        async def ask(**parameters: object) -> Any:
            answer = await gateway.client.post("/v2/models/adds/infer", json={"inputs": [x], "parameters": parameters})
            return answer.json() if answer.is_error else json.loads(answer.json()["outputs"][0]["data"][0])

        begun = await ask(sequence_id=7, sequence_start=True)
        ended = await ask(sequence_id=7, sequence_end=True)
        assert begun == {SEQUENCE_ID: "7", SEQUENCE_START: "true"}
        assert ended == {SEQUENCE_ID: "7", SEQUENCE_START: "false", SEQUENCE_END: "true"}
        assert "has no sequence_id, and adds 1.0 keeps sequences" in (await ask())["error"]
        assert "the parameter sequence_end, and no sequence_id" in (await ask(sequence_end=True))["error"]
        assert "give a number or a text" in (await ask(sequence_id=True))["error"]
        async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
            request = pb.ModelInferRequest(model_name="adds")
            request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"1")
            request.parameters["sequence_id"].string_param = "g"
            request.parameters["sequence_start"].bool_param = True
            stub: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            (output,) = (await stub.ModelInfer(request)).outputs
        assert json.loads(output.contents.bytes_contents[0]) == {SEQUENCE_ID: "g", SEQUENCE_START: "true"}
        plain = await gateway.client.post("/predictions/adds", content=b"1", headers={SEQUENCE_ID: "r"})
        assert plain.json() == {SEQUENCE_ID: "r"}
