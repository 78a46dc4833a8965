"""What NVIDIA's tritonclient gets from a gateway, over HTTP and gRPC, as one JSON document.

Runs in an environment of its own: `python triton.py HTTP_HOST:PORT GRPC_HOST:PORT DIGITS_AS_JSON ADMIN_HOST:PORT`.
"""

import json
import sys
import time

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

TEXTS = np.array([b"wake me up at six", b"tell me a joke", "spiel für mich".encode()], object)
ARRAYS = {
    "FP32": np.array([[0.1, -2.5, 3e38], [1, 2, 3]], np.float32),
    "FP16": np.array([[0.1, -2.5, 65504], [1, 2, 3]], np.float16),
    "INT64": np.array([[-(2**63), 2**63 - 1, 0], [1, 2, 3]], np.int64),
    "BOOL": np.array([[True, False, True], [False, False, True]]),
}


def infer(kind, client, model, name, array, datatype, output, binary, version=""):
    tensor = kind.InferInput(name, list(array.shape), datatype)
    if kind is over_http:
        tensor.set_data_from_numpy(array, binary_data=binary)
        wanted = kind.InferRequestedOutput(output, binary_data=binary)
    else:
        tensor.set_data_from_numpy(array)
        wanted = kind.InferRequestedOutput(output)
    return client.infer(model, [tensor], outputs=[wanted], model_version=version, request_id="42")


def labels(result):
    return [json.loads(value)["label"] for value in result.as_numpy("prediction").tolist()]


def talk(kind, client):
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models": [client.is_model_ready("intent"), client.is_model_ready("intent", "1.0")],
    }
    if kind is over_http:
        said["inputs"] = client.get_model_metadata("intent")["inputs"]
        said["server"] = client.get_server_metadata()["name"]
    else:
        said["inputs"] = client.get_model_metadata("intent", as_json=True)["inputs"]
        said["server"] = client.get_server_metadata().name
    for form, binary in (("binary", True), ("json", False)):
        result = infer(kind, client, "intent", "text", TEXTS, "BYTES", "prediction", binary, version="PROD")
        said[f"intent {form}"] = labels(result)
    said["id"] = result.get_response()["id"] if kind is over_http else result.get_response().id
    digits = np.array(json.loads(sys.argv[3]), np.float32)
    said["digits"] = labels(infer(kind, client, "digits", "image", digits, "FP32", "prediction", True))
    for datatype, array in ARRAYS.items():
        got = infer(kind, client, f"echo-{datatype}", "x", array, datatype, "y", True).as_numpy("y")
        said[datatype] = got.dtype == array.dtype and got.shape == array.shape and got.tobytes() == array.tobytes()
    try:
        infer(kind, client, "intent", "text", np.array([b"a", b""], object), "BYTES", "prediction", True)
    except kind.InferenceServerException as exc:
        said["refused"] = [exc.status(), exc.message()]
    return said


def steer(client):
    client.unload_model("echo-BOOL")
    client.load_model("echo-BOOL")
    for _ in range(200):
        states = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
        if states["echo-BOOL"] == "READY":
            break
        time.sleep(0.05)
    return states["echo-BOOL"]


def main():
    with over_http.InferenceServerClient(sys.argv[1]) as client:
        http = talk(over_http, client)
    with over_grpc.InferenceServerClient(sys.argv[2]) as client:
        grpc = talk(over_grpc, client)
    with over_http.InferenceServerClient(sys.argv[4]) as client:
        state = steer(client)
    print(json.dumps({"http": http, "grpc": grpc, "state": state}))


main()
