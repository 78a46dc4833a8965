"""What tritonclient gets for many requests from one address, as JSON: `triton_clients.py HTTP GRPC decoupled|plain`.

It runs in Triton's own environment, once against Triton and once against Marway before it; a test compares the two.
"""

import asyncio
import base64
import json
import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor

HTTP, GRPC = sys.argv[1:3]
DECOUPLED = sys.argv[3] == "decoupled"
NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
    "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip
NO_JSON = ("FP16", "BF16")


def values(datatype, *shape):
    """Values of a datatype, its greatest and least among them."""
    if datatype == "BYTES":
        words = [b"", b"a\0b", "größer".encode(), b"x" * 300]
        return np.resize(np.array(words, object), shape)
    kind = NUMPY[datatype]
    if datatype == "BOOL":
        return np.resize(np.array([True, False, False]), shape)
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        return np.resize(np.array([limits.min, limits.max, 0, 1, 7], kind), shape)
    largest = float(ml_dtypes.finfo(kind).max)
    return np.resize(np.array([0.5, -0.25, largest, 0.1, -0.0], kind), shape)


def tensor(kind, name, datatype, array, **form):
    made = kind.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **form)
    return made


def told(array):
    """An array as JSON: its type, its shape and its bytes."""
    if array is None:
        return None
    data = serialize_byte_tensor(array).item() if array.dtype == np.object_ else array.tobytes()
    return [np_to_triton_dtype(array.dtype), list(array.shape), base64.b64encode(data or b"").decode()]


def answer(result, *names):
    """What a result says, whatever it came over."""
    said = result.get_response(as_json=True) if hasattr(result, "_result") and over_is_grpc(result) else None
    said = said if said is not None else result.get_response()
    outputs = {each["name"]: [each["datatype"], [int(side) for side in each["shape"]]] for each in said["outputs"]}
    return {
        "id": said.get("id", ""),
        "model": said["model_name"],
        "parameters": said.get("parameters", {}),
        "outputs": outputs,
        "values": {name: told(result.as_numpy(name)) for name in names or outputs},
    }


def over_is_grpc(result):
    return isinstance(result, over_grpc.InferResult)


def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except InferenceServerException as exc:
        return [(exc.status() or "").removeprefix("StatusCode."), exc.message()]
    return ["served", ""]


def datatypes(kind, client):
    """Every datatype, as binary and as JSON, in batches of 1 and 3."""
    said = {}
    for datatype in NUMPY:
        for rows in (1, 3):
            array = values(datatype, rows, 5)
            result = client.infer(f"same-{datatype.lower()}", [tensor(kind, "x", datatype, array)])
            said[f"{datatype} {rows}"] = answer(result)
            if kind is over_http and datatype not in NO_JSON:
                inputs = [tensor(kind, "x", datatype, array, binary_data=False)]
                outputs = [kind.InferRequestedOutput("x", binary_data=False)]
                said[f"{datatype} {rows} as JSON"] = answer(
                    client.infer(f"same-{datatype.lower()}", inputs, outputs=outputs)
                )
    return said


def empty(kind, client):
    """Tensors without elements, and bytes that are no text."""
    return [
        answer(client.infer("same-int64", [tensor(kind, "x", "INT64", np.zeros((2, 0), np.int64))])),
        answer(client.infer("same-bytes", [tensor(kind, "x", "BYTES", np.array([[b"\xff\xfe", b"\0"]], object))])),
    ]


def outputs(kind, client):
    """All outputs, some of them, and the classes of one; what the model is told beside tensors."""
    inputs = [tensor(kind, "x", "FP32", np.array([[0.1, 0.7, 0.2]], np.float32))]
    one = [kind.InferRequestedOutput("half")]
    classes = [kind.InferRequestedOutput("double", class_count=2)]
    own = {"temperature": 0.5, "name": "x", "deep": True, "count": 3}
    return [
        answer(client.infer("five", inputs, request_id="mine", priority=3, timeout=60_000_000)),
        answer(client.infer("five", inputs, outputs=one)),
        answer(client.infer("five", inputs, outputs=classes)),
        answer(client.infer("five", inputs, parameters=own)),
    ]


def compressed(kind, client):
    name = "compression_algorithm" if kind is over_grpc else "request_compression_algorithm"
    inputs = [tensor(kind, "x", "FP32", values("FP32", 1, 1000))]
    return answer(client.infer("same-fp32", inputs, **{name: "gzip"}))


def large(kind, client):
    """Some megabytes."""
    return answer(client.infer("same-uint8", [tensor(kind, "x", "UINT8", values("UINT8", 8, 400_000))]))


def sequences(kind, client):
    """Two sequences at once, one named by a number and one by a text; and one that was never started."""
    said = []
    for number in range(3):
        for sequence in (7, "seven"):
            inputs = [tensor(kind, "x", "INT32", np.array([[number + 1]], np.int32))]
            flags = {"sequence_start": number == 0, "sequence_end": number == 2}
            said.append(answer(client.infer("sum", inputs, sequence_id=sequence, **flags)))
    inputs = [tensor(kind, "x", "INT32", np.array([[1]], np.int32))]
    return [*said, refused(client.infer, "sum", inputs, sequence_id=99), refused(client.infer, "sum", inputs)]


def errors(kind, client):
    right = np.zeros((1, 2), np.float32)
    nan = [tensor(kind, "x", "FP32", np.array([[np.nan, np.inf]], np.float32))]
    return {
        "datatype": refused(client.infer, "same-fp32", [tensor(kind, "x", "INT32", right.astype(np.int32))]),
        "name": refused(client.infer, "same-fp32", [tensor(kind, "y", "FP32", right)]),
        "nothing": refused(client.infer, "same-fp32", []),
        "batch": refused(client.infer, "same-fp32", [tensor(kind, "x", "FP32", np.zeros((9, 1), np.float32))]),
        "dimensions": refused(client.infer, "same-fp32", [tensor(kind, "x", "FP32", np.zeros((1, 1, 1), np.float32))]),
        "output": refused(client.infer, "same-fp32", [tensor(kind, "x", "FP32", right)],
                          outputs=[kind.InferRequestedOutput("nix")]),
        "nan": answer(client.infer("same-fp32", nan)),
    }  # fmt: skip


def metadata(kind, client):
    said = {}
    for model in ("same-bf16", "five", "sum", *(["pieces"] if DECOUPLED else [])):
        named = {"as_json": True} if kind is over_grpc else {}
        found = client.get_model_metadata(model, **named)
        tensors = [
            [each["name"], each["datatype"], [int(side) for side in each["shape"]]]
            for each in (*found["inputs"], *found["outputs"])
        ]
        said[model] = [client.is_model_ready(model), tensors]
    return said


def streams(kind, client):
    """Decoupled responses, none and errors among them; other models; sequences: many requests of one stream at once.

    One stream each: Triton 2.51 dies of decoupled and other models in one.
    """
    numbers = {"three": 3, "none": 0, "many": 101, "one": 1}
    pieces = [("pieces", "n", number, [1], {"request_id": name}) for name, number in numbers.items()]
    same = [("same-int32", "x", number, [1, 1], {"request_id": f"same {number}"}) for number in range(20)]
    flags = [{"sequence_start": number == 0, "sequence_end": number == 3} for number in range(4)]
    sums = [
        ("sum", "x", number, [1, 1], {"sequence_id": 5, "request_id": "sum", **flags[number]}) for number in range(4)
    ]
    never = ("sum", "x", 1, [1, 1], {"sequence_id": 6, "request_id": "never"})
    return [streamed(kind, requests) for requests in ([pieces] if DECOUPLED else []) + [same, [*sums, never]]]


def streamed(kind, requests):
    """The responses to requests of one stream, by request; the client does not say which one an error is for."""
    done, said, errors = queue.Queue(), {}, []
    with over_grpc.InferenceServerClient(GRPC) as own:
        own.start_stream(callback=lambda result, error: done.put((result, error)))
        for model, name, number, shape, more in requests:
            inputs = [tensor(kind, name, "INT32", np.full(shape, number, np.int32))]
            own.async_stream_infer(model, inputs, enable_empty_final_response=True, **more)
        own.stop_stream()  # it waits for all responses
    while not done.empty():
        result, error = done.get()
        if error is not None:
            errors.append(error.message())
            continue
        response = result.get_response()
        value = told(result.as_numpy(response.outputs[0].name)) if response.outputs else None
        said.setdefault(response.id, []).append([response.parameters["triton_final_response"].bool_param, value])
    return [said, sorted(errors)]


async def aio():
    """The clients of asyncio, many requests at once, and a stream of theirs."""
    said = []
    for kind, address in ((over_http_aio, HTTP), (over_grpc_aio, GRPC)):
        async with kind.InferenceServerClient(address) as client:
            inputs = [[tensor(kind, "x", "INT64", np.array([[number]], np.int64))] for number in range(16)]
            results = await asyncio.gather(*(client.infer("same-int64", each) for each in inputs))
            said.append([int(result.as_numpy("x")[0, 0]) for result in results])
    if not DECOUPLED:
        return said
    async with over_grpc_aio.InferenceServerClient(GRPC) as client:

        async def requests():
            yield {"model_name": "pieces", "inputs": [tensor(over_grpc_aio, "n", "INT32", np.array([4], np.int32))]}

        responses = client.stream_infer(requests())
        said.append([int(result.as_numpy("x")[0]) async for result, error in responses if error is None])
    return said


CASES = (datatypes, empty, outputs, compressed, large, sequences, errors, metadata)


def main():
    said = {}
    with over_http.InferenceServerClient(HTTP, network_timeout=300, connection_timeout=300) as http:
        for case in CASES:
            said[f"{case.__name__} over http"] = case(over_http, http)
    with over_grpc.InferenceServerClient(GRPC) as rpc:
        for case in (*CASES, streams):
            said[f"{case.__name__} over grpc"] = case(over_grpc, rpc)
    said["aio"] = asyncio.run(aio())
    print(json.dumps(said))


main()
