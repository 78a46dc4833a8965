"""What KServe's own inference client gets from a gateway, over v1, v2 and gRPC, as one JSON document.

Runs in an environment of its own: `python kserve_client.py HTTP_URL GRPC_HOST:PORT`.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

TEXTS = ["wake me up at six", "tell me a joke"]


def request(binary):
    tensor = InferInput(name="text", shape=[2], datatype="BYTES", data=None if binary else TEXTS)
    if binary:
        tensor.set_data_from_numpy(np.array(TEXTS, object), binary_data=True)
    return InferRequest(model_name="intent", infer_inputs=[tensor], request_id="42")


def labels(response):
    values = response.outputs[0].as_numpy().tolist()
    return [json.loads(value)["label"] for value in values]


async def refused(call):
    """Return status and words of an error."""
    try:
        return await call
    except httpx.HTTPStatusError as exc:
        return [exc.response.status_code, exc.response.json()["error"]]


async def main():
    url, target = sys.argv[1:3]
    said = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        said["v1 live"] = await client.is_server_live(url)
        said["v1 ready"] = await client.is_model_ready(url, "intent")
        answer = await client.infer(url, {"instances": TEXTS}, model_name="intent")
        said["v1"] = [value["label"] for value in answer["predictions"]]
        said["v1 explain"] = await client.explain(url, "probe", {"instances": ["explain"]})
        said["v1 explain refused"] = await refused(client.explain(url, "intent", {"instances": TEXTS}))
        said["v1 unknown"] = await refused(client.is_model_ready(url, "nix"))
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        said["v2 ready"] = [
            await client.is_server_live(url),
            await client.is_server_ready(url),
            await client.is_model_ready(url, "intent"),
            await client.is_model_ready(url, "nix"),
        ]
        for form in ("json", "binary"):
            answer = await client.infer(url, request(form == "binary"), model_name="intent")
            said[f"v2 {form}"] = labels(answer)
            said[f"v2 {form} id"] = answer.id
    async with InferenceGRPCClient(target) as client:
        said["grpc ready"] = [
            await client.is_server_live(),
            await client.is_server_ready(),
            await client.is_model_ready("intent"),
        ]
        said["grpc"] = labels(await client.infer(request(True)))
        said["grpc typed"] = labels(await client.infer(request(False)))
    print(json.dumps(said))


asyncio.run(main())
