"""Nothing that `observe_redact` names is kept, by whatever protocol it came and however the prediction ended."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from gateway.fakes import FakePod, Running, busy, hang, running
from gateway.handlers import ready
from gateway.observe.test_every_ending import kept, model
from gateway.surfaces.test_streaming import sending
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.proto.torchserve import inference_pb2, inference_pb2_grpc
from marway_http.proto import open_inference_pb2 as pb
from marway_http.proto import open_inference_pb2_grpc
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]

CANARY = "C4NARYbird"
STAYS = "st4ys"
SERVING = ServingSettings(
    observe="bodies",
    observe_redact=("email", "user.name", "client", "header:x-request-group-id", "header:x-user"),
)
DOCUMENT = {"email": CANARY, "user": {"name": CANARY, "kind": STAYS}, "age": 3}
TEXT = json.dumps(DOCUMENT)
HEADERS = {"x-request-group-id": CANARY, "x-user": CANARY, "authorization": f"Bearer {CANARY}"}
EMAIL = {"name": "email", "shape": [1], "datatype": "BYTES", "data": [CANARY]}
BODY = {"name": "body", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
V1 = {"instances": [DOCUMENT, {"b64": base64.b64encode(TEXT.encode()).decode()}]}
CHAT = {"model": "story", "messages": [{"role": "user", "content": TEXT}]}
MULTIPART = (
    f'--B\r\nContent-Disposition: form-data; name="email"\r\n\r\n{CANARY}\r\n'
    f'--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n{TEXT}\r\n--B--\r\n'
).encode()
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
HTTP: list[tuple[str, bytes, str]] = [
    ("/predict/intent/PROD", TEXT.encode(), JSON),
    ("/predict/intent/PROD", TEXT.encode(), FORM),
    ("/predict/intent", f"email={CANARY}&kind={STAYS}".encode(), FORM),
    ("/predict/intent", MULTIPART, "multipart/form-data; boundary=B"),
    ("/predict/intent", CANARY.encode(), "text/plain"),
    ("/predict/intent", b"\x89PNG" + CANARY.encode(), "image/png"),
    ("/predict/intent", TEXT[:-1].encode(), JSON),
    (f"/predict/intent?email={CANARY}", b"{}", JSON),
    ("/predictions/intent", TEXT.encode(), JSON),
    ("/v1/models/intent:predict", json.dumps(V1).encode(), JSON),
    ("/v2/models/intent/infer", json.dumps({"inputs": [EMAIL, BODY]}).encode(), JSON),
    ("/openai/v1/chat/completions", json.dumps(CHAT).encode(), JSON),
]


def quoting(status: int) -> Callable[[FakePod, web.Request], Awaitable[web.StreamResponse]]:
    """Fail as handlers do that say what they were given."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=f"{CANARY} is no mail", headers={OUTCOME: Outcome.ANSWERED})

    return behave


def grpc_calls(channel: Any, timeout_ms: str) -> Iterable[Awaitable[object]]:
    metadata = (("x-request-group-id", CANARY), ("x-request-timeout-ms", timeout_ms))
    tensors = []
    for name, text in (("email", CANARY), ("body", TEXT)):
        tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=(1,))
        tensor.contents.bytes_contents.append(text.encode())
        tensors.append(tensor)
    theirs = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
    fields = inference_pb2.PredictionsRequest(
        model_name="intent", input={"email": CANARY.encode(), "data": TEXT.encode(), "kind": STAYS.encode()}
    )
    yield theirs.Predictions(fields, metadata=metadata)
    infer = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    yield infer(pb.ModelInferRequest(model_name="intent", inputs=tensors), metadata=metadata)
    predict = prediction_pb2_grpc.PredictionServiceStub(channel).Predict
    yield predict(prediction_pb2.PredictRequest(runId="intent", document=TEXT), metadata=metadata)


async def ask_every_way(gateway: Running, channel: Any, timeout_ms: str) -> int:
    """Ask once by each protocol; return how often that was."""
    headers = {**HEADERS, "x-request-timeout-ms": timeout_ms}

    async def over_http(path: str, body: bytes, kind: str) -> None:
        await gateway.client.post(path, content=body, headers={**headers, "content-type": kind})

    async def over_grpc(call: Awaitable[object]) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call

    calls = [over_http(*each) for each in HTTP] + [over_grpc(call) for call in grpc_calls(channel, timeout_ms)]
    await asyncio.gather(*calls)
    return len(calls)


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, serving=SERVING)
    publish(registry, tmp_path, "story", serving=SERVING.model_copy(update={"streaming": True}))


async def test_no_canary_is_kept(
    registry: Registry,
    make_pod: MakePod,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each protocol, kind of body and way of ending: no file and no line of a log holds what is taken out."""
    pod, asked = await make_pod(behave=model), 0
    async with (
        running(pod, registry=registry, access_log=True, queue_timeout_s=0.05) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        await ready(gateway)
        for behave in (model, quoting(400), quoting(500), busy, hang):
            pod.behave = behave
            asked += await ask_every_way(gateway, channel, "400" if behave is hang else "30000")
        pod.behave = sending(TEXT.encode(), CANARY.encode())
        for accept in ("*/*", "text/event-stream"):
            await gateway.client.post(
                "/predict/story", content=TEXT, headers={**HEADERS, "accept": accept, "content-type": JSON}
            )
            asked += 1
    rows = kept(tmp_path / "registry" / "observations")
    assert len(rows) == asked
    assert any(STAYS in str(row["input"]) for row in rows if row["surface"] == "torchserve_grpc")
    for surface in ("native", "v1", "open_inference", "torchserve", "openai"):
        assert any(STAYS in str(row["input"]) for row in rows if row["surface"] == surface), surface
    said = "".join(capfd.readouterr()) + caplog.text
    assert '"surface":"native"' in said
    assert CANARY not in said
    assert CANARY not in repr(rows)
    hidden = [CANARY.encode(), *(base64.b64encode(b" " * shift + CANARY.encode())[4:12] for shift in range(3))]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(each in path.read_bytes() for each in hidden), path
