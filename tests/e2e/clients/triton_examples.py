"""What the clients in triton-inference-server/client's src/python/examples get from a gateway, as one JSON document.

Each function makes the calls of the examples of its name, over HTTP, gRPC or both, and returns what came, or raises.
Runs in an environment of its own: `python triton_examples.py HTTP_HOST:PORT GRPC_HOST:PORT ADMIN_HOST:PORT`.
"""

import asyncio
import json
import queue
import sys
from functools import partial

import grpc
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

HTTP, GRPC, ADMIN = sys.argv[1:4]
ZERO = np.arange(16, dtype=np.int32).reshape(1, 16)
ONE = np.ones((1, 16), np.int32)
REGION = ("data", 64)


def simple_inputs(kind, binary=(False, True)):
    inputs = [kind.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for tensor, array, as_binary in zip(inputs, (ZERO, ONE), binary, strict=True):
        tensor.set_data_from_numpy(array, *([as_binary] if kind in (over_http, over_http_aio) else []))
    return inputs


def simple_outputs(kind):
    if kind in (over_http, over_http_aio):
        return [kind.InferRequestedOutput("OUTPUT0", binary_data=True), kind.InferRequestedOutput("OUTPUT1", False)]
    return [kind.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]


def right(result):
    got = result.as_numpy("OUTPUT0"), result.as_numpy("OUTPUT1")
    return (
        all(np.array_equal(*pair) for pair in zip(got, (ZERO + ONE, ZERO - ONE), strict=True))
        and got[0].dtype == np.int32
    )


def infer(kind, client):
    """`simple_*_infer_client`: outputs named and not, with query parameters or metadata."""
    more = {"query_params": {"test_1": 1}} if kind is over_http else {"headers": {"test": "1"}}
    named = client.infer("simple", simple_inputs(kind), outputs=simple_outputs(kind), **more)
    return [right(named), right(client.infer("simple", simple_inputs(kind)))]


def compressed(kind, client):
    """The same with their `--request-compression-algorithm`, `--response-…` and `--grpc-compression-algorithm`."""
    said = []
    for coding in ("gzip", "deflate"):
        if kind is over_http:
            more = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        else:
            more = {"compression_algorithm": coding}
        said.append(right(client.infer("simple", simple_inputs(kind), outputs=simple_outputs(kind), **more)))
    return said


def asynchronous(kind, client):
    """`simple_*_async_infer_client`."""
    if kind is over_http:
        calls = [client.async_infer("simple", simple_inputs(kind), outputs=simple_outputs(kind)) for _ in range(2)]
        return [right(call.get_result()) for call in calls]
    done = queue.Queue()
    for _ in range(2):
        client.async_infer(
            "simple", simple_inputs(kind), partial(lambda done, result, error: done.put((result, error)), done)
        )
    return [error is None and right(result) for result, error in (done.get(timeout=60) for _ in range(2))]


def strings(kind, client):
    """`simple_*_string_infer_client`: numbers as text, null characters, bytes."""
    said = []
    inputs = [kind.InferInput(name, [1, 16], "BYTES") for name in ("INPUT0", "INPUT1")]
    for tensor, array in zip(inputs, (ZERO, ONE), strict=True):
        texts = np.array([str(value).encode() for value in array.ravel()], object).reshape(1, 16)
        tensor.set_data_from_numpy(texts, *([tensor.name() == "INPUT0"] if kind is over_http else []))
    got = client.infer("simple_string", inputs, outputs=simple_outputs(kind)).as_numpy("OUTPUT0")
    said.append([int(value) for value in got.ravel()] == (ZERO + ONE).ravel().tolist())
    for values in (np.array([b"he\x00llo"] * 16, object), np.array([b"\x00\x01\x02\x03"] * 16, np.bytes_)):
        for binary in (True, False) if kind is over_http else (True,):
            tensor = kind.InferInput("INPUT0", [1, 16], "BYTES")
            tensor.set_data_from_numpy(values.reshape(1, 16), *([binary] if kind is over_http else []))
            wanted = kind.InferRequestedOutput("OUTPUT0", *([binary] if kind is over_http else []))
            got = client.infer("simple_identity", [tensor], outputs=[wanted]).as_numpy("OUTPUT0").ravel()
            said.append([value.encode() if isinstance(value, str) else value for value in got] == list(values))
    return said


def health_metadata(kind, client):
    """`simple_*_health_metadata`."""
    models = client.is_model_ready("simple"), client.is_model_ready("nix") if kind is over_http else False
    name = client.get_server_metadata()
    name = name["name"] if kind is over_http else name.name
    model = client.get_model_metadata("simple")
    model = model["name"] if kind is over_http else model.name
    return [client.is_server_live(), client.is_server_ready(), *models, name, model]


def unknown_model(kind, client):
    return client.get_model_metadata("wrong_model_name")


def config(kind, client):
    return client.get_model_config("simple")


def statistics(kind, client):
    return client.get_inference_statistics("simple")


def all_statistics(kind, client):
    return client.get_inference_statistics()


def trace(kind, client):
    return client.get_trace_settings()


def logging(kind, client):
    return client.update_log_settings({"log_verbose_level": 1})


def sequence(kind, client):
    """`simple_*_sequence_sync_infer_client`."""
    return client.infer("simple", simple_inputs(kind), sequence_id=1000, sequence_start=True)


def string_sequence(kind, client):
    return client.infer("simple", simple_inputs(kind), sequence_id="a-b", sequence_end=True)


def priority(kind, client):
    return client.infer("simple", simple_inputs(kind), priority=1)


def custom_parameter(kind, client):
    return client.infer("simple", simple_inputs(kind), parameters={"temperature": 1})


def timeout(kind, client):
    """The server's own time-out, in microseconds: one that is enough, and one that is not."""
    enough = right(client.infer("simple", simple_inputs(kind), timeout=60_000_000))
    try:
        client.infer("simple", simple_inputs(kind), timeout=1)
    except InferenceServerException as exc:
        return [enough, exc.status().removeprefix("StatusCode."), exc.message()]


def shared_memory_calls(kind, client):
    """`simple_*_shm_client`, whose first calls are these."""
    said = []
    for call in (
        client.unregister_system_shared_memory,
        client.unregister_cuda_shared_memory,
        client.get_system_shared_memory_status,
        partial(client.register_system_shared_memory, "data", "/simple", 64),
        partial(client.register_cuda_shared_memory, "data", b"aGFuZGxl", 0, 64),
    ):
        try:
            said.append(call())
        except InferenceServerException as exc:
            said.append([exc.status().removeprefix("StatusCode."), exc.message()])
    return [json.loads(each) for each in dict.fromkeys(map(json.dumps, said))]


def shared_memory_input(kind, client):
    tensor = simple_inputs(kind)[0]
    tensor.set_shared_memory(*REGION)
    return client.infer("simple", [tensor, simple_inputs(kind)[1]])


def shared_memory_output(kind, client):
    output = kind.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory(*REGION)
    return client.infer("simple", simple_inputs(kind), outputs=[output])


def classes(kind, client):
    """What `image_client` asks for."""
    return client.infer("simple", simple_inputs(kind), outputs=[kind.InferRequestedOutput("OUTPUT0", class_count=3)])


def repository(kind, client):
    return client.load_model("simple")


def stream(kind, client):
    """`simple_grpc_custom_repeat`, and `simple_grpc_sequence_stream_infer_client`, one of whose requests is refused."""
    done = queue.Queue()
    with over_grpc.InferenceServerClient(GRPC) as own:
        own.start_stream(callback=lambda result, error: done.put((result, error)))
        own.async_stream_infer("simple", simple_inputs(kind), request_id="a")
        result, _ = done.get(timeout=60)
        own.async_stream_infer("simple", simple_inputs(kind), sequence_id=7, sequence_start=True)
        _, error = done.get(timeout=60)
    return [right(result), result.get_response().id, error.message()]


def raw(kind, client):
    """A raw binary request, by the client's own HTTP pool: no example makes one."""
    answer = client._post("v2/models/intent/infer", b"play some jazz", {"Inference-Header-Content-Length": "0"}, None)
    length = int(answer.get("Inference-Header-Content-Length"))
    result = kind.InferResult.from_response_body(answer.read(), header_length=length)
    return [json.loads(value)["label"] for value in result.as_numpy("prediction")]


def empty_contents(kind, client):
    """What generated stubs of some languages send: `contents` set and left empty beside `raw_input_contents`."""
    request = service_pb2.ModelInferRequest(model_name="simple")
    for name, array in (("INPUT0", ZERO), ("INPUT1", ONE)):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16]).contents.SetInParent()
        request.raw_input_contents.append(array.tobytes())
    with grpc.insecure_channel(GRPC) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    return np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.int32), (ZERO + ONE).ravel())


def explicit_contents(kind, client):
    """`grpc_explicit_int_content_client`: typed inputs; it reads raw outputs, which are given when asked for."""
    request = service_pb2.ModelInferRequest(model_name="simple")
    for name, array in (("INPUT0", ZERO), ("INPUT1", ONE)):
        tensor = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        tensor.contents.int_contents.extend(array.ravel().tolist())
    with grpc.insecure_channel(GRPC) as channel:
        service = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        typed = service.ModelInfer(request, timeout=60)
        request.parameters["binary_data_output"].bool_param = True
        raw = service.ModelInfer(request, timeout=60)
        request.raw_input_contents.append(ZERO.tobytes())
        try:
            service.ModelInfer(request, timeout=60)
        except grpc.RpcError as exc:
            refused = exc.details()
    wanted = (ZERO + ONE).ravel().tolist()
    return [
        list(typed.outputs[0].contents.int_contents) == wanted,
        len(typed.raw_output_contents),
        np.frombuffer(raw.raw_output_contents[0], np.int32).tolist() == wanted,
        refused,
    ]


def channel_options(kind, client):
    """`simple_grpc_keepalive_client`, `simple_grpc_custom_args_client`."""
    keepalive = over_grpc.KeepAliveOptions(
        keepalive_time_ms=2**31 - 1,
        keepalive_timeout_ms=20_000,
        keepalive_permit_without_calls=False,
        http2_max_pings_without_data=2,
    )
    said = []
    arguments = [("grpc.max_send_message_length", 2**20), ("grpc.dns_enable_srv_queries", 1)]
    for more in ({"keepalive_options": keepalive}, {"channel_args": arguments}):
        with over_grpc.InferenceServerClient(GRPC, **more) as own:
            said.append(right(own.infer("simple", simple_inputs(kind))))
    return said


def model_control(kind, client):
    """`simple_http_model_control`, on the admin port; whether a model is ready, the public port says."""
    with over_http.InferenceServerClient(ADMIN) as admin:
        names = {entry["name"] for entry in admin.get_model_repository_index()}
        admin.load_model("simple")
        said = ["simple" in names, client.is_model_ready("simple")]
        for override in ({"config": '{"max_batch_size": "16"}'}, {"config": "{}", "files": {"file:1/model.pt": b"x"}}):
            try:
                said.append(admin.load_model("simple", **override))
            except InferenceServerException as exc:
                said.append([exc.status(), exc.message()])
        admin.unload_model("simple", unload_dependents=True)
        try:
            admin.load_model("wrong_model_name")
        except InferenceServerException as exc:
            said.append([exc.status(), exc.message()])
    return said


async def aio():
    """`simple_*_aio_infer_client`."""
    said = []
    for kind, address in ((over_http_aio, HTTP), (over_grpc_aio, GRPC)):
        async with kind.InferenceServerClient(address) as client:
            calls = [client.infer("simple", simple_inputs(kind), outputs=simple_outputs(kind)) for _ in range(2)]
            said += [right(result) for result in await asyncio.gather(*calls)]
    return said


BOTH = (
    *(infer, compressed, asynchronous, strings, health_metadata, unknown_model, config, statistics, all_statistics),
    *(trace, logging, sequence, string_sequence, priority, custom_parameter, timeout, shared_memory_calls),
    *(shared_memory_input, shared_memory_output, classes, repository),
)


def said_of(example, kind, client):
    try:
        return example(kind, client)
    except InferenceServerException as exc:
        return [(exc.status() or "").removeprefix("StatusCode."), exc.message()]


def main():
    said = {}
    with over_http.InferenceServerClient(HTTP, concurrency=2) as http, over_grpc.InferenceServerClient(GRPC) as rpc:
        for example in BOTH:
            said[example.__name__] = [said_of(example, over_http, http), said_of(example, over_grpc, rpc)]
        for example in (raw, model_control):
            said[example.__name__] = said_of(example, over_http, http)
        for example in (stream, empty_contents, explicit_contents, channel_options):
            said[example.__name__] = said_of(example, over_grpc, rpc)
    said["aio"] = asyncio.run(aio())
    print(json.dumps(said))


main()
