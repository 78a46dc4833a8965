"""Runs in a process of its own: loads a handler with TorchServe's worker code and answers calls.

Started as a script, `python handler_child.py FD JOB`: FD is one end of a socket pair, JOB a JSON file. Its own
directory is taken from the path before the handler is loaded. Lines of JSON go both ways. First comes
`{"loaded": {...versions}}` or `{"failed": MESSAGE}`; then each `{"rows": [i, ...]}` is answered with
`{"seconds": s, "pieces": n, "answers": "…"}`: the time inside the handler, what it sent before it returned, and an
envelope of answers in base64.

The handler is called as workers call it (`marway.worker`), also where its archive says `asyncCommunication` or
`continuousBatching`. A tensor is answered as the JSON of what it holds; of an answer in pieces the last one counts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

__all__ = ["main"]


class Sink:
    """Where a handler's intermediate answers go: nowhere, but counted."""

    pieces = 0

    def sendall(self, data: bytes) -> None:
        self.pieces += 1


def load(job: dict[str, Any]) -> Any:
    """Load the handler as TorchServe's worker does, and return its service."""
    asyncio.set_event_loop(asyncio.new_event_loop())  # what an `async def` handler makes now may belong to it
    # These leave files open, which is their matter.
    warnings.simplefilter("ignore", ResourceWarning)
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    from marway.worker.calls import declare_metrics

    metrics = MetricsCacheYamlImpl(str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
    metrics.initialize_cache()
    declare_metrics(metrics, job["model_dir"])
    metrics.model_name = job["model_name"]
    # The front end passes no GPU where there is none, batch size 1, and no request envelope.
    loader = ModelLoaderFactory.get_model_loader()
    service = loader.load(
        job["model_name"], job["model_dir"], job["handler"], None, 1, None, True, metrics_cache=metrics
    )
    service.set_cl_socket(Sink())
    return service


def answer(service: Any, rows: list[Any]) -> dict[str, Any]:
    """Call the handler with all rows: once, or until it has answered them whole."""
    from ts.context import RequestProcessor

    from marway.archives.rules import calling_of
    from marway.wire.envelope import encode_answers
    from marway.worker.calls import call_async_handler, call_handler, described_tensor
    from marway.worker.continuous import ContinuousBatch, answered_whole
    from marway.worker.requests import request_of
    from marway.worker.sequences import alone, keeps_sequences

    context, sink, seconds = service.context, service.cl_socket, 0.0
    context.cl_socket = sink  # where a handler that answers in pieces sends them
    before = sink.pieces

    def timed(inputs: Any, context: Any) -> Any:
        nonlocal seconds
        started = time.perf_counter()
        try:
            return service._entry_point(inputs, context)
        finally:
            seconds += time.perf_counter() - started

    async def timed_async(inputs: Any, context: Any) -> Any:
        nonlocal seconds
        started = time.perf_counter()
        try:
            return await service._entry_point(inputs, context)
        finally:
            seconds += time.perf_counter() - started

    if keeps_sequences(context):
        rows = [alone(row) for row in rows]
    requests = [request_of(replace(row, request_id=f"request-{index}")) for index, row in enumerate(rows)]
    way = calling_of(context.model_yaml_config or {}).way
    if way == "async":
        call = call_async_handler(timed_async, context, requests, RequestProcessor, tensor=described_tensor)
        answers = asyncio.get_event_loop().run_until_complete(call).answers
    elif way == "continuous":
        batch: Any = ContinuousBatch(timed, context, RequestProcessor, tensor=described_tensor)
        steps, _ = answered_whole(batch, requests)
        answers = [pieces[-1].answer for pieces in steps]
        sink.pieces += sum(len(pieces) for pieces in steps)
    else:
        answers = call_handler(timed, context, requests, RequestProcessor, tensor=described_tensor).answers
    encoded = base64.b64encode(encode_answers(answers)).decode()
    return {"seconds": seconds, "pieces": sink.pieces - before, "answers": encoded}


def main() -> None:
    """Serve calls until the other end is closed."""
    descriptor, job_file = int(sys.argv[1]), sys.argv[2]
    os.set_inheritable(descriptor, False)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    # Before the handler's own modules are on the path.
    import marway.worker.calls  # noqa: F401
    from marway.archives.handler_failure import handler_failure
    from marway.wire.envelope import decode_rows

    rows = decode_rows(Path(job["rows"]).read_bytes())
    sys.argv = [job["model_name"]]
    sys.path[0] = job["model_dir"]  # in place of this script's directory, as TorchServe's PYTHONPATH begins
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as wire:

        def send(message: dict[str, Any]) -> None:
            wire.write(json.dumps(message).encode() + b"\n")
            wire.flush()

        try:
            service = load(job)
            import torch
            import ts

            send({"loaded": {"torchserve": ts.__version__, "torch": torch.__version__}})
        except (Exception, SystemExit) as exc:
            send({"failed": handler_failure(exc, job["model_dir"], job["handler"])})
            return
        for line in wire:
            send(answer(service, [rows[index] for index in json.loads(line)["rows"]]))


if __name__ == "__main__":
    main()
