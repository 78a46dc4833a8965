"""Requests of the protocol and of other kinds to the real Triton, and servers that Marway does not manage.

Fast tests of the conversions: tests/http/tensors/test_plain_rows.py, test_v2_bodies.py.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.open_inference.subjects import DECOUPLED, TRITON_CONFIG, TritonSubject
from marway.deadline import Deadline
from marway.errors import InvalidRequest, LoadFailed, ModelError
from marway.settings import load_settings
from marway.wire.envelope import Answer, Part, Row
from marway_http.tensors.datatypes import DATATYPES
from marway_http.tensors.tensor import Tensor
from marway_http.tensors.v2_bodies import tensor_request, tensors_of_response
from marway_sidecar.backends.base import ModelServer, ServedModel
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.settings import SidecarSettings
from support.every import usual
from support.servers import running_triton

pytestmark = [pytest.mark.extended, pytest.mark.timeout(120)]

NAMES = [name for name in sorted(DATATYPES) if name != "BF16"]
"""Triton's Python backend has no BF16; it goes the same way as FP16 does."""
ALL_CONFIG = "backend: 'python'\nmax_batch_size: 0\ninstance_group [{ kind: KIND_CPU count: 1 }]\n" + "".join(
    f"{way} [{{ name: '{name.lower()}' data_type: TYPE_{'STRING' if name == 'BYTES' else name} dims: [2] }}]\n"
    for way in ("input", "output")
    for name in NAMES
)
ALL_MODEL = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb.InferenceResponse([pb.Tensor(each.name(), each.as_numpy()) for each in request.inputs()])
            for request in requests
        ]
"""
TWICE_CONFIG = """
backend: "python"
max_batch_size: 4
input [{ name: "x" data_type: TYPE_FP32 dims: [2] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
TWICE_MODEL = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        found = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", each * 2)]) for each in found]
"""


COUNTING_CONFIG = TWICE_CONFIG + "output [{ name: 'rows' data_type: TYPE_INT32 dims: [1] }]\n"
COUNTING_MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            time.sleep(0.05)
            rows = pb.Tensor("rows", np.full((len(x), 1), len(x), np.int32))
            answers.append(pb.InferenceResponse([pb.Tensor("y", x * 2), rows]))
        return answers
"""


@pytest.fixture(scope="module", params=usual("both", more=["rest"]))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonSubject]:
    directory = tmp_path_factory.mktemp(request.param)
    with running_triton(directory / "server") as server:
        yield TritonSubject(server, directory, over=request.param)


@asynccontextmanager
async def loaded(subject: TritonSubject, model: ServedModel) -> AsyncIterator[ModelServer]:
    server = subject.backend.connect()
    assert server is not None
    try:
        assert await server.is_same(timeout_s=30)
        await server.load(model)
        yield server
        await server.unload(model)
    finally:
        await server.aclose()


async def ask(server: ModelServer, model: ServedModel, body: bytes, content_type: str, **headers: str) -> Answer:
    headers = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    (answer,) = await server.predict(model, [Row("r", [Part("data", body, content_type)], headers)], Deadline.after(30))
    return answer


async def test_every_datatype_comes_back_as_it_went(subject: TritonSubject) -> None:
    """A binary request of all datatypes is answered by the same values, under the caller's names."""
    values = {"BOOL": [True, False], "BYTES": [b"a", b"\xff\0"]}
    tensors = [Tensor(n.lower(), DATATYPES[n], (2,), values.get(n, [DATATYPES[n].kind(1), 0])) for n in NAMES]
    model = subject.bundle("all", {"config.pbtxt": ALL_CONFIG, "1/model.py": ALL_MODEL}, version="7")
    async with loaded(subject, model) as server:
        body, length = tensor_request(tensors)
        header = str(length)
        answer = await ask(server, model, body, "application/octet-stream", inference_header_content_length=header)
        length = int(answer.headers["inference-header-content-length"])
        told = json.loads(answer.body[:length])
        assert (told["model_name"], told["model_version"]) == ("all", "7")
        found = {each.name: list(each.values) for each in tensors_of_response(answer.body, length)}
        assert found == {each.name: list(each.values) for each in tensors}
        described = json.loads((await ask(server, model, b"", "", describe="True")).body)
        assert {each["name"] for each in described["inputs"]} == {name.lower() for name in NAMES}


async def test_requests_that_wait_go_together(subject: TritonSubject) -> None:
    """Over gRPC, requests that come while the model is at work become one of at most its rows; each is answered by its
    own, in its own form. Where rows are not to be batched, and over REST, each goes by itself.
    """
    files = {"config.pbtxt": COUNTING_CONFIG, "1/model.py": COUNTING_MODEL}
    for rows_max in (1, 32):
        model = replace(subject.bundle("counting", files), batch_rows=rows_max)
        async with loaded(subject, model) as server:
            bodies = [json.dumps({"x": [number, 0]}).encode() for number in range(12)]
            answers = await asyncio.gather(*(ask(server, model, body, "application/json") for body in bodies))
            told = [json.loads(each.body) for each in answers]
            assert [each["y"] for each in told] == [[number * 2, 0] for number in range(12)]
            stacked = max(each["rows"][0] for each in told)
            assert stacked == (4 if rows_max > 1 and subject.over == "both" else 1)


async def test_other_rows_and_what_is_refused(subject: TritonSubject) -> None:
    """JSON is a batch of one or of several, requests keep their ids, and what is wrong is said in a sentence."""
    model = subject.bundle("twice", {"config.pbtxt": TWICE_CONFIG, "1/model.py": TWICE_MODEL})

    def v2(datatype: str, data: list[Any], shape: list[int], **more: object) -> bytes:
        return json.dumps(
            {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}], **more}
        ).encode()

    async with loaded(subject, model) as server:
        kind = "application/json"
        assert json.loads((await ask(server, model, b"[1, 2]", kind)).body) == [2, 4]
        assert json.loads((await ask(server, model, b"[[1, 2], [3, 4]]", kind)).body) == [[2, 4], [6, 8]]
        octets = struct.pack("<2f", 1, 2)
        assert json.loads((await ask(server, model, octets, "application/octet-stream")).body) == [2, 4]
        answer = json.loads((await ask(server, model, v2("FP32", [1, 2], [1, 2], id="mine"), kind)).body)
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("twice", "1.0", "mine")
        assert answer["outputs"][0]["data"] == [2, 4]
        for body, said in (
            (v2("INT32", [1, 2], [1, 2]), "data-type is 'INT32'.*'twice 1.0' expects 'FP32'"),
            (v2("FP32", [1, 2, 3], [1, 3]), "unexpected shape for input 'x'"),
            (v2("FP32", [1, 2], [1, 2], outputs=[{"name": "z"}]), "unexpected inference output 'z'"),
            (v2("FP32", [0] * 10, [5, 2]), "batch-size must be <= 4"),
            (b"[1, 2, 3]", r"input 'x' has the shape \[3\]: the model takes FP32 of the shape \[-1, 2\]"),
        ):
            with pytest.raises(InvalidRequest, match=said):
                await ask(server, model, body, kind)
        with pytest.raises(ModelError, match="has no explanations"):
            await ask(server, model, b"[1, 2]", kind, explain="True")


async def test_decoupled_models_answer_in_pieces_over_grpc(subject: TritonSubject, tmp_path: Path) -> None:
    """Each piece of a request of the protocol is a response and a newline; without gRPC such a model is refused."""
    model = subject.model("decoupled", streaming=True)
    if not subject.streams:
        model = subject.bundle("decoupled", {"config.pbtxt": TRITON_CONFIG + DECOUPLED, "1/model.py": ALL_MODEL})
        with pytest.raises(LoadFailed, match="set open_inference_grpc on this pod"):
            async with loaded(subject, model):
                pass
        return
    gate = tmp_path / "gate"
    gate.touch()
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [f"pieces {gate}"]}]
    body = json.dumps({"id": "mine", "inputs": inputs}).encode()
    row = Row("r", [Part("data", body, "application/json")], {"content-type": "application/json"})
    async with loaded(subject, model) as server:
        async with aclosing(server.predict_stream(model, row, Deadline.after(30))) as stream:
            pieces = [json.loads(piece.body) async for piece in stream]
        assert [piece["outputs"][0]["data"] for piece in pieces] == [["one"], ["two"]]
        assert {(piece["model_name"], piece["id"]) for piece in pieces} == {("decoupled", "mine")}


async def test_somebody_elses_server_serves_what_it_has(subject: TritonSubject, tmp_path: Path) -> None:
    """A version is the server's own of that number; one that it lacks is refused with those that it has."""
    theirs = subject.bundle("theirs", {"config.pbtxt": TWICE_CONFIG, "1/model.py": TWICE_MODEL})
    settings = subject.backend.settings
    addresses = {name: getattr(settings, name) for name in ("open_inference_url", "open_inference_grpc")}
    backend = open_backend(
        load_settings(SidecarSettings, backend="open-inference", open_inference_manage=False, **addresses)
    )
    async with loaded(subject, theirs):
        other = backend.connect()
        assert other is not None
        assert await other.is_same(timeout_s=30)
        empty = subject.bundle("ours", {}, version="1", server_model=theirs.server_name)
        await other.load(empty)
        assert json.loads((await ask(other, empty, b"[1, 2]", "application/json")).body) == [2, 4]
        with pytest.raises(LoadFailed, match=r"no version 3 of .* it has 1"):
            await other.load(replace(empty, version="3", server_name="mv_3"))
        unknown = subject.bundle("unknown", {}, version="1")
        with pytest.raises(LoadFailed, match="its server has no model 'unknown'"):
            await other.load(unknown)
        await other.unload(empty)
        assert await other.describe(empty) is None
        await other.aclose()
