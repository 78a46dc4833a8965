"""Every parser of the gateway is given what costs it most: it refuses or converts it, and the loop has its turns."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from gateway.fakes import FakePod, Running, running
from gateway.handlers import echo, handling, ready
from marway.objects import DirectoryStore
from marway.registry import Registry
from support.loop import LOOSE_S, blocked
from support.registry import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
INFER = "/v2/models/free/infer"
PREDICT = "/v1/models/free:predict"
B64 = {"b64": ""}


def v2(shape: list[int], data: str, datatype: str = "FP32") -> bytes:
    tensor = f'{{"name": "a", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}'
    return f'{{"inputs": [{tensor}]}}'.encode()


def binary(shape: list[int], datatype: str, size: int) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "a", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + b"\x01" * size, {"inference-header-content-length": str(len(head))}


WORST: dict[str, Callable[[], tuple[str, bytes, dict[str, str]]]] = {
    "dimension of 0": lambda: (INFER, v2([1, 50_000_000, 0], "[]"), {}),
    "numbers as JSON": lambda: (INFER, v2([1, 1], "[" + "1," * (16 * MIB) + "1]"), {}),
    "lists as JSON": lambda: (INFER, v2([1, 1], "[" + "[]," * (8 * MIB) + "1]"), {}),
    "texts as JSON": lambda: (INFER, v2([1, 1], "[" + '"",' * (8 * MIB) + '""]', "BYTES"), {}),
    "objects as JSON": lambda: (INFER, b'{"inputs": [' + b"{}," * (8 * MIB) + b"{}]}", {}),
    "deep JSON": lambda: (INFER, b'{"inputs": ' + b"[" * (16 * MIB), {}),
    "bytes as a tensor": lambda: (INFER, *binary([1, 24 * MIB], "UINT8", 24 * MIB)),
    "texts as a tensor": lambda: (INFER, *binary([1, 1], "BYTES", 16 * MIB)),
    "instances": lambda: (PREDICT, b'{"instances": [' + b"1," * (16 * MIB) + b"1]}", {}),
    "parts": lambda: (PREDICT, json.dumps({"instances": [{f"{n}": B64 for n in range(200_000)}]}).encode(), {}),
    "columns": lambda: (PREDICT, b'{"inputs": {"a": [' + b"[1]," * (2 * MIB) + b"1]}}", {}),
    "deep instances": lambda: (PREDICT, b'{"instances": ' + b'[{"a":' * (4 * MIB), {}),
    "no JSON": lambda: (PREDICT, b"\xff" * (32 * MIB), {}),
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway with one conversion process over a pod that gives back what it gets."""
    scratch = tmp_path_factory.mktemp("worst")
    registry = Registry(DirectoryStore(scratch / "registry"))
    publish(registry, scratch, "free")
    pod = FakePod("a", behave=handling(echo))
    await pod.start()
    async with running(pod, registry=registry, converters=1, max_body_bytes=40 * MIB) as served:
        await ready(served)
        yield served
    await pod.stop()


@pytest.mark.parametrize("kind", WORST)
async def test_fault_worst_input_over_http(gateway: Running, kind: str) -> None:
    """It is refused as the client's fault, and the loop is never held up."""
    path, body, headers = WORST[kind]()
    async with blocked() as seen:
        said = await gateway.client.post(path, content=body, headers=headers)
    assert said.status_code in (400, 413), said.text
    assert max(seen) < LOOSE_S


async def test_a_large_body_is_converted_elsewhere(gateway: Running) -> None:
    """What is large and right is answered as what is small."""
    numbers = [0.5] * 50_000
    document = {"inputs": [{"name": "a", "shape": [1, 50_000], "datatype": "FP32", "data": numbers}]}
    said = await gateway.client.post(INFER, json=document)
    assert said.status_code == 200, said.text
    assert said.json()["outputs"][0]["data"] == numbers
    said = await gateway.client.post(PREDICT, json={"instances": [numbers]})
    assert said.json() == {"predictions": [numbers]}


async def test_a_deadline_ends_a_conversion(gateway: Running) -> None:
    """A body that is not read in time is answered so, and its process goes: the next request gets another."""
    path, body, _ = WORST["numbers as JSON"]()
    said = await gateway.client.post(path, content=body, headers={"x-request-timeout-ms": "400"})
    assert said.status_code == 504, said.text
    await test_a_large_body_is_converted_elsewhere(gateway)


def field(number: int, data: bytes) -> bytes:
    """Return a field of protobuf's encoding."""
    size, length = b"", len(data)
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


def contents(inner: bytes) -> bytes:
    return field(1, b"free") + field(5, field(1, b"a") + field(2, b"INT64") + field(3, b"\x01") + field(5, inner))


MESSAGES = {
    "inputs": lambda: field(1, b"free") + b"\x2a\x00" * (8 * MIB),
    "numbers": lambda: contents(field(3, b"\x01" * (16 * MIB))),
    "texts": lambda: contents(b"\x42\x00" * (8 * MIB)),
    "cut off": lambda: b"\x2a\xff\xff\xff\x7f" + b"x" * 8192,
    "no message": lambda: b"\xff" * (8 * MIB),
}


@pytest.mark.parametrize("kind", MESSAGES)
async def test_fault_worst_input_over_grpc(gateway: Running, kind: str) -> None:
    """Messages are bounded before they are parsed, and large ones are parsed elsewhere."""
    message = MESSAGES[kind]()
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        async with blocked() as seen:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(message)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value
    assert max(seen) < LOOSE_S


@pytest.mark.parametrize(
    "method",
    [
        "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
        "/prediction.PredictionService/Predict",
        "/inference.GRPCInferenceService/ModelReady",
        "/grpc.health.v1.Health/Check",
    ],
)
async def test_messages_of_many_fields(gateway: Running, method: str) -> None:
    """The bound holds for every method that takes one message."""
    async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"\x1a\x00" * 20_000)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "10000 fields" in (caught.value.details() or "")


async def test_the_loop_is_watched(gateway: Running) -> None:
    """How long the loop had no turn is among the metrics."""
    said = await gateway.client.get("/metrics")
    assert "marway_gateway_loop_blocked_seconds_bucket" in said.text
