"""Keeps gRPC calls of one message busy: `grpc_load.py ADDRESS MESSAGE_FILE CLIENTS SECONDS`, in a process of its own.

As wrk does over HTTP: each client has a connection, and sends the next request as soon as the last was answered.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc.aio

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


async def client(address: str, message: bytes, until: float, took: list[float]) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call = channel.unary_unary(_METHOD, None, None)
        while (began := time.perf_counter()) < until:
            await call(message, timeout=60)
            took.append(time.perf_counter() - began)


async def main(address: str, message: bytes, clients: int, seconds: float) -> None:
    took = list[float]()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client(address, message, began + seconds, took))
    seconds = time.perf_counter() - began
    took.sort()
    p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    print(json.dumps({"rate": len(took) / seconds, "p50": p50, "p99": p99}))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4])))
