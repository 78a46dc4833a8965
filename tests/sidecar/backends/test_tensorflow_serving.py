"""TensorFlow Serving keeps the contract of backends, and takes and gives every datatype: over a stand-in that speaks
the official messages (`support.tensorflow_serving`), for there is no package with the server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    LoadFailed,
    MarwayError,
    ModelError,
    Overloaded,
    RuntimeDown,
    Unimplemented,
)
from marway.settings import load_settings
from marway.wire.envelope import Answer, Part, Row
from marway_http.tensors.datatypes import DATATYPES
from marway_sidecar.backends.base import Backend, ModelServer, NotLoaded, NotSent, ServedModel
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.backends.tensorflow_serving.classify import classify
from marway_sidecar.backends.tensorflow_serving.proto import error_codes_pb2, tensorflow_pb2, tensorflow_serving_pb2
from marway_sidecar.backends.tensorflow_serving.transport import Failed, grpc_name
from marway_sidecar.settings import SidecarSettings
from support.tensorflow_serving import StandIn, saved_model, write_bundle

SAY = saved_model("say", {"text": ("DT_STRING", [-1])})
DTYPES = {
    "BF16": "DT_BFLOAT16", "BOOL": "DT_BOOL", "BYTES": "DT_STRING", "FP16": "DT_HALF", "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "INT8": "DT_INT8",
    "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64", "UINT8": "DT_UINT8",
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "BF16": [1.5, -2.0], "BOOL": [True, False], "BYTES": [b"w\xc3\xb6rd", b""], "FP16": [0.5, 65504.0],
    "FP32": [0.1, -3.0], "FP64": [0.1, 1e300], "INT16": [-32768, 5], "INT32": [-(2**31), 7], "INT64": [-(2**63), 9],
    "INT8": [-128, 127], "UINT16": [65535, 0], "UINT32": [2**32 - 1, 1], "UINT64": [2**64 - 1, 2], "UINT8": [255, 3],
}  # fmt: skip


class Room:
    """A stand-in with the backend that manages it, as the contract suite sees it."""

    streams = workers_die = False

    def __init__(self, home: Path, running: StandIn, **settings: object) -> None:
        self.home = home
        self.running = running
        self.models = home / "models"
        self._numbers = itertools.count()
        given = {"tensorflow_serving_grpc": running.grpc, "tensorflow_serving_models": self.models, **settings}
        self.backend: Backend = open_backend(load_settings(SidecarSettings, backend="tensorflow-serving", **given))

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        return self.version(name, saved_model("broken", {}) if broken else SAY, streaming=streaming)

    def version(
        self, name: str, model: bytes | None = None, *, files: dict[str, bytes] | None = None, **facts: Any
    ) -> ServedModel:
        name = f"{name}-{next(self._numbers)}"
        path = write_bundle(
            self.home / "store" / f"{name}.bundle", files or {"saved_model.pb": model or SAY}, name=name
        )
        return ServedModel(f"mv_{name.upper()}", name, "1.0", path, 1, 20.0, 10.0, **facts)

    async def restart(self) -> None:
        await asyncio.to_thread(self.running.kill)
        await asyncio.to_thread(self.running.start)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with StandIn() as running:
        yield Room(tmp_path, running)


@pytest_asyncio.fixture
async def server(room: Room) -> AsyncIterator[ModelServer]:
    found = room.backend.connect()
    assert found is not None
    assert await found.is_same(timeout_s=10)
    yield found
    await found.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, room: Room) -> None:
    """Each check of the contract suite holds for it."""
    await asyncio.wait_for(run_check(check, room), 60)


def row(body: bytes, content_type: str = "application/json", **headers: str) -> Row:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Row("asked", [Part("data", body, content_type)], {"content-type": content_type, **given})


async def ask(server: ModelServer, model: ServedModel, asked: Row) -> Answer:
    (answer,) = await server.predict(model, [asked], Deadline.after(20))
    return answer


def infer(*inputs: dict[str, Any], **more: Any) -> Row:
    return row(json.dumps({"inputs": list(inputs), **more}).encode())


@pytest.mark.parametrize("does", ["echo", "echo raw"])
@pytest.mark.parametrize("name", sorted(DATATYPES))
async def test_every_datatype_goes_through(name: str, does: str, room: Room, server: ModelServer) -> None:
    """Binary and JSON tensors of each datatype come back as they went, however the server writes them."""
    spec = (DTYPES[name], [-1, 2])
    model = room.version("echo", saved_model(does, {"x": spec}))
    await server.load(model)
    values, datatype = VALUES[name], DATATYPES[name]
    data = datatype.pack(values)
    described = {"name": "x", "datatype": name, "shape": [1, 2]}
    binary = {**described, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"id": "7", "parameters": {"binary_data_output": True}, "inputs": [binary]}).encode()
    answer = await ask(server, model, row(head + data, inference_header_content_length=str(len(head))))
    length = int(answer.headers["inference-header-content-length"])
    said = json.loads(answer.body[:length])
    assert (said["model_name"], said["model_version"], said["id"]) == (model.name, "1.0", "7")
    assert said["outputs"] == [binary]
    assert answer.body[length:] == data
    in_json = [value.decode() if isinstance(value, bytes) else value for value in values]
    answer = await ask(server, model, infer({**described, "data": in_json}))
    (output,) = json.loads(answer.body)["outputs"]
    assert (output["shape"], output["data"]) == (
        [1, 2],
        datatype.unpack(data, count=2, where="") if name != "BYTES" else in_json,
    )
    await server.unload(model)


async def test_plain_rows_are_made_tensors(room: Room, server: ModelServer) -> None:
    """JSON values, texts and objects become what the model takes by the server's word, and answers plain values."""
    one = room.version("one", saved_model("echo", {"x": ("DT_FLOAT", [-1, 2])}))
    two = room.version("two", saved_model("echo", {"a": ("DT_INT64", [-1]), "b": ("DT_STRING", [-1])}))
    for model in (one, two):
        await server.load(model)
    assert json.loads((await ask(server, one, row(b"[1, 2]"))).body) == [1.0, 2.0]
    assert json.loads((await ask(server, one, row(b"[[1, 2], [3, 4]]"))).body) == [[1.0, 2.0], [3.0, 4.0]]
    assert json.loads((await ask(server, two, row(b'{"a": 3, "b": "w"}'))).body) == {"a": 3, "b": "w"}
    with pytest.raises(InvalidRequest, match="the model takes") as raised:
        await ask(server, one, row(b"[1, 2, 3]"))
    assert (raised.value.model, raised.value.version) == (one.name, "1.0")
    scalar = room.version("scalar", saved_model("echo", {"x": ("DT_INT32", [])}))
    await server.load(scalar)
    assert json.loads((await ask(server, scalar, row(b"7"))).body) == 7
    answers = await server.predict(one, [row(b"[1, 2]"), row(b"[3, 4]")], Deadline.after(20))
    assert [json.loads(answer.body) for answer in answers] == [[1.0, 2.0], [3.0, 4.0]]


async def test_it_says_what_a_model_takes(room: Room, server: ModelServer) -> None:
    """A row that asks for a description is answered with the server's metadata."""
    model = room.version("m", saved_model("echo", {"x": ("DT_FLOAT", [-1, 2])}))
    await server.load(model)
    answer = await ask(server, model, row(b"", describe="True"))
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    assert json.loads(answer.body) == {"inputs": [x], "outputs": [x]}


X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        (infer({**X, "datatype": "INT32"}), ModelError, "Expects arg.0. to be DT_FLOAT but DT_INT32 is provided"),
        (infer({**X, "datatype": "FLOAT"}), InvalidRequest, "no known datatype"),
        (infer({**X, "name": "y"}, {**X, "name": "z"}), ModelError, "input size does not match signature"),
        (infer(X, parameters={"signature_name": "other"}), ModelError, 'signature key "other" not found'),
        (infer(X, parameters={"priority": 1}), InvalidRequest, "'priority', which has no effect here"),
        (infer({**X, "parameters": {"shared": True}}), InvalidRequest, "'shared', which has no effect"),
        (infer(X, outputs=[{"name": "x", "parameters": {"classification": 2}}]), InvalidRequest, "'classification'"),
        (infer(X, outputs=[{"name": "nope"}]), ModelError, "alias not found in signature: nope"),
        (infer(X, X), InvalidRequest, "is there twice"),
        (row(b"[1, 2]", explain="True"), Unimplemented, "no explanations"),
    ],
)
async def test_what_it_does_not_take_is_told(
    asked: Row, error: type[MarwayError], said: str, room: Room, server: ModelServer
) -> None:
    """A wrong datatype, input, output, signature or parameter is one sentence, by whoever knows it."""
    model = room.version("m", saved_model("echo", {"x": ("DT_FLOAT", [-1, 2])}))
    await server.load(model)
    with pytest.raises(error, match=said) as raised:
        await ask(server, model, asked)
    assert (raised.value.model, raised.value.status or 400) == (model.name, 400)


async def test_outputs_that_were_asked_for_come_in_that_order(room: Room, server: ModelServer) -> None:
    """The request's outputs are the answer's, and the server is asked for them alone."""
    spec = ("DT_FLOAT", [-1, 2])
    model = room.version("m", saved_model("echo", {"a": spec, "b": spec, "c": spec}))
    await server.load(model)
    inputs = [{**X, "name": name} for name in "abc"]
    answer = await ask(server, model, infer(*inputs, outputs=[{"name": "c"}, {"name": "a"}]))
    assert [each["name"] for each in json.loads(answer.body)["outputs"]] == ["c", "a"]
    assert list(room.running.seen[-1].output_filter) == ["c", "a"]


async def test_outputs_of_few_values_are_filled_and_strange_ones_refused(room: Room, server: ModelServer) -> None:
    """The last value stands for the rest of the shape; a datatype that the protocol has not is named."""
    zeros = room.version("zeros", saved_model("zeros", {"x": ("DT_FLOAT", [-1])}, {"y": ("DT_FLOAT", [2, 3])}))
    complex_ = room.version("complex", saved_model("complex", {"x": ("DT_FLOAT", [-1])}, {"y": ("DT_COMPLEX64", [])}))
    for model in (zeros, complex_):
        await server.load(model)
    assert json.loads((await ask(server, zeros, row(b"[1]"))).body) == [[0.5] * 3] * 2
    with pytest.raises(ModelError, match="the output 'y' is DT_COMPLEX64"):
        await ask(server, complex_, row(b"[1]"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"readme.txt": b"x"}, "has no SavedModel: pack a directory with a saved_model.pb"),
        ({"saved_model.pb": saved_model("broken", {})}, "cannot be loaded: it is broken"),
    ],
)
async def test_what_is_no_model_is_refused_and_leaves_nothing(
    files: dict[str, bytes], said: str, room: Room, server: ModelServer
) -> None:
    """A bundle that cannot be served says what is wrong; neither files nor the server's list keep it."""
    model = room.version("m", files=files)
    with pytest.raises(LoadFailed, match=said):
        await server.load(model)
    assert [each.name for each in room.models.iterdir() if not each.name.startswith(".")] == []
    assert room.running.lists[-1] == []
    good = room.version("good")
    await server.load(good)
    assert (await ask(server, good, row(b"say x", "text/plain"))).body == b"x"


async def test_a_new_sidecar_clears_what_a_dead_one_left(room: Room, server: ModelServer) -> None:
    """What was loaded by another is unloaded, and its files go; a version that stays loaded is one list each."""
    left, kept = room.version("left"), room.version("kept")
    for model in (left, kept):
        await server.load(model)
    assert room.running.lists[-1] == sorted([left.server_name, kept.server_name])
    after = room.backend.connect()
    assert after is not None
    try:
        assert await after.is_same(timeout_s=10)
        assert room.running.lists[-1] == []
        assert [each.name for each in room.models.iterdir() if not each.name.startswith(".")] == []
        await after.load(kept)
        assert (await ask(after, kept, row(b"say x", "text/plain"))).body == b"x"
    finally:
        await after.aclose()
    assert await server.is_same(timeout_s=10) is False


async def test_a_server_that_takes_no_list_is_told_as_such(room: Room) -> None:
    """One that answers and refuses is not called silent."""
    room.running.takes_lists = False
    server = room.backend.connect()
    assert server is not None
    try:
        with pytest.raises(MarwayError, match="would not take a list of models: Cannot transition"):
            await server.is_same(timeout_s=10)
        assert "Cannot transition" in room.backend.trouble(found=True)
    finally:
        await server.aclose()


async def test_models_of_its_own_list_stay(tmp_path: Path) -> None:
    """What the server's own model config file names is on every list that it is given."""
    own = tmp_path / "own"
    (own / "1").mkdir(parents=True)
    (own / "1" / "saved_model.pb").write_bytes(SAY)
    file = tmp_path / "models.config"
    policy = "model_version_policy { specific { versions: 1 } }"
    config = f'config {{ name: "own" base_path: "{own}" model_platform: "tensorflow" {policy} }}'
    file.write_text(f"model_config_list {{ {config} }}")
    with StandIn() as running:
        room = Room(tmp_path, running, tensorflow_serving_config=file)
        server = room.backend.connect()
        assert server is not None
        try:
            assert await server.is_same(timeout_s=10)
            model = room.version("m")
            await server.load(model)
            assert (await server.status()).server_names == {model.server_name}
            await server.unload(model)
        finally:
            await server.aclose()
        assert running.lists == [["own"], ["own"], sorted(["own", model.server_name]), ["own"]]


@pytest.mark.parametrize("address", ["grpc", "url"])
async def test_somebody_elses_server_serves_what_it_has(address: str, tmp_path: Path) -> None:
    """A version is served when the server has it, over gRPC and REST; one that it lacks is refused with what it has."""
    with StandIn() as running:
        running.add("theirs", 3, saved_model("echo", {"x": ("DT_FLOAT", [-1, 2]), "w": ("DT_STRING", [-1])}))
        settings = {f"tensorflow_serving_{address}": getattr(running, address), "tensorflow_serving_manage": False}
        backend = open_backend(load_settings(SidecarSettings, backend="tensorflow-serving", **settings))  # type: ignore[arg-type]
        server = backend.connect()
        assert server is not None
        path = write_bundle(tmp_path / "empty.bundle", {}, server_model="theirs")
        model = ServedModel("mv_A", "ours", "3", path, 1, 10.0, 10.0)
        try:
            assert await server.is_same(timeout_s=10)
            await server.load(model)
            answer = await ask(server, model, row(b'{"x": [1, 2], "w": "b"}'))
            assert json.loads(answer.body) == {"x": [1.0, 2.0], "w": "b"}
            w = {"name": "w", "datatype": "BYTES", "shape": [1], "data": ["b"]}
            answer = await ask(server, model, infer(X, w, outputs=[{"name": "x"}]))
            assert json.loads(answer.body)["outputs"] == [X]
            with pytest.raises(LoadFailed, match="which Marway does not manage, has versions 3 of 'theirs', and not 4"):
                await server.load(ServedModel("mv_B", "ours", "4", path, 1, 10.0, 10.0))
            with pytest.raises(LoadFailed, match="has no version of 'other'"):
                await server.load(
                    ServedModel("mv_C", "other", "1", write_bundle(tmp_path / "o.bundle", {}), 1, 10.0, 10.0)
                )
            await server.unload(model)
            with pytest.raises(NotLoaded):
                await ask(server, model, row(b"[1, 2]"))
            await server.load(model)
            await asyncio.to_thread(running.kill)
            with pytest.raises(NotSent):
                await ask(server, model, infer(X, w))
            with pytest.raises(RuntimeDown):
                await server.is_same(timeout_s=5)
            await asyncio.to_thread(running.start)
            assert await asyncio.wait_for(_is_same_once_up(server), 20) is False
        finally:
            await server.aclose()


async def _is_same_once_up(server: ModelServer) -> bool:
    while True:
        try:
            return await server.is_same(timeout_s=10)
        except RuntimeDown:
            await asyncio.sleep(0.02)  # a connection is not tried again at once


MODEL = ServedModel("mv_A", "m", "1", Path("m.bundle"), 1, 10.0, 10.0)


@pytest.mark.parametrize(
    ("code", "text", "kind", "status"),
    [
        ("NOT_FOUND", "Servable not found for request: Specific(m, 1)", NotLoaded, None),
        ("NOT_FOUND", "Key not found in checkpoint", ModelError, 404),
        ("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full", Overloaded, None),
        ("RESOURCE_EXHAUSTED", "OOM when allocating tensor with shape[1]", ModelError, 507),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", BodyTooLarge, None),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded, None),
        ("INVALID_ARGUMENT", "bad", ModelError, 400),
        ("FAILED_PRECONDITION", "bad", ModelError, 400),
        ("UNIMPLEMENTED", "bad", ModelError, 501),
        ("INTERNAL", "bad", ModelError, 500),
        ("UNKNOWN", "bad", ModelError, 500),
    ],
)
def test_the_table_of_errors(code: str, text: str, kind: type[MarwayError], status: int | None) -> None:
    """Each of the server's codes is an error of ours, about the version."""
    error = classify(Failed(code, text), MODEL)
    assert type(error) is kind
    assert (error.model, error.version, getattr(error, "status", None)) == ("m", "1", status)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs one address"),
        ({"grpc": "a:1", "url": "http://a"}, "needs one address"),
        ({"grpc": "a:1"}, "tensorflow_serving_models is not set"),
        ({"url": "http://a", "models": "/m"}, "loads and unloads over gRPC alone"),
        ({"grpc": "a:1", "manage": False, "models": "/m"}, "tensorflow_serving_models has no effect"),
        ({"grpc": "a:1", "models": "/m", "config": "/nowhere"}, "/nowhere cannot be read"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], said: str) -> None:
    """Each says what to set."""
    given = {f"tensorflow_serving_{name}": value for name, value in settings.items()}
    with pytest.raises(InvalidSettings, match=said):
        open_backend(load_settings(SidecarSettings, backend="tensorflow-serving", **given))  # type: ignore[arg-type]


def test_messages_have_the_official_numbers() -> None:
    """Packages, names and numbers are TensorFlow's, compared with those of tensorflow-serving-api 2.19.1."""
    pb, tf = tensorflow_serving_pb2, tensorflow_pb2
    assert {each.full_name for each in pb.DESCRIPTOR.services_by_name.values()} == {
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    }
    numbers = {
        pb.ModelSpec: {"name": 1, "version": 2, "signature_name": 3, "version_label": 4},
        pb.PredictRequest: {"model_spec": 1, "inputs": 2, "output_filter": 3},
        pb.PredictResponse: {"outputs": 1, "model_spec": 2},
        pb.ModelConfig: {
            "name": 1, "base_path": 2, "model_platform": 4, "model_version_policy": 7, "version_labels": 8,
        },
        pb.ModelVersionStatus: {"version": 1, "state": 2, "status": 3},
        pb.SignatureDefMap: {"signature_def": 1},
        tf.TensorProto: {
            "dtype": 1, "tensor_shape": 2, "version_number": 3, "tensor_content": 4, "float_val": 5, "double_val": 6,
            "int_val": 7, "string_val": 8, "int64_val": 10, "bool_val": 11, "half_val": 13, "uint32_val": 16,
            "uint64_val": 17,
        },
        tf.SignatureDef: {"inputs": 1, "outputs": 2, "method_name": 3, "defaults": 4},
        tf.TensorInfo: {"name": 1, "dtype": 2, "tensor_shape": 3},
        tf.TensorShapeProto: {"dim": 2, "unknown_rank": 3},
    }  # fmt: skip
    for message, fields in numbers.items():
        assert {field.name: field.number for field in message.DESCRIPTOR.fields} == fields, message.DESCRIPTOR.full_name
        assert message.DESCRIPTOR.full_name.startswith("tensorflow.")
    assert [grpc_name(code) for code in error_codes_pb2.Code.values()] == error_codes_pb2.Code.keys()
