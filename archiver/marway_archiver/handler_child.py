"""Runs in a process of its own: loads a handler with TorchServe's worker code and answers calls.

Started as a script, `python handler_child.py FD JOB`: FD is one end of a socket pair, JOB a JSON file. Its own
directory is taken from the path before the handler is loaded. Lines of JSON go both ways. First comes
`{"loaded": {...versions}}` or `{"failed": MESSAGE}`; then each `{"rows": [i, ...]}` is answered with
`{"seconds": s, "pieces": n, "answers": [{status, kind, content_type, body}, ...]}`, bodies in base64; pieces are
what the handler sent before it returned.

Requests are laid out as TorchServe's front end sends them to a worker, and read by TorchServe's own code.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import socket
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import Any

__all__ = ["main"]

END = struct.pack("!i", -1)
OUT_OF_RESOURCES = 507
encoder: Any = None
"""`marway.answers.encoding`, loaded from the file that the job names."""


class Frame:
    """Bytes that are read as if they came from the front end's socket."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def recv(self, length: int) -> bytes:
        return self._stream.read(length)


class Sink:
    """Where a handler's intermediate answers go: nowhere, but counted."""

    pieces = 0

    def sendall(self, data: bytes) -> None:
        self.pieces += 1


def framed(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as the front end's message to a worker (`ts.protocol.otf_message_handler`)."""
    parts: list[bytes] = []
    for index, row in enumerate(rows):
        content_type = row["content_type"] or ""
        parts += _sized(f"request-{index}".encode())
        if content_type:
            parts += _sized(b"content-type") + _sized(content_type.encode())
        parts.append(END)
        parts += _sized(b"data") + _sized(content_type.partition(";")[0].strip().encode())
        parts += [*_sized(Path(row["file"]).read_bytes()), END]
    return b"".join([*parts, END])


def _sized(value: bytes) -> list[bytes]:
    return [struct.pack("!i", len(value)), value]


def load(job: dict[str, Any]) -> Any:
    """Load the handler as TorchServe's worker does, and return its service."""
    # These leave files open, which is their matter.
    warnings.simplefilter("ignore", ResourceWarning)
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    metrics = MetricsCacheYamlImpl(str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
    metrics.initialize_cache()
    own = Path(job["model_dir"]) / "metrics.yaml"  # names metrics that the handler gets by name, as in a worker of ours
    if own.is_file():
        declared = MetricsCacheYamlImpl(str(own))
        declared.initialize_cache()
        for kind, named in declared.cache.items():
            metrics.cache.setdefault(kind, {}).update(named)
    metrics.model_name = job["model_name"]
    # The front end passes no GPU where there is none, batch size 1, and no request envelope.
    loader = ModelLoaderFactory.get_model_loader()
    service = loader.load(
        job["model_name"], job["model_dir"], job["handler"], None, 1, None, True, metrics_cache=metrics
    )
    service.set_cl_socket(Sink())
    return service


def answer(service: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Call the handler once with all rows."""
    from ts.protocol.otf_message_handler import _retrieve_inference_msg
    from ts.utils.util import PredictionException

    from marway.wire.raw_body import RawBody

    context = service.context
    headers, inputs, ids = service.retrieve_data_for_inference(_retrieve_inference_msg(Frame(framed(rows))))
    context.request_ids, context.request_processor = ids, headers
    context.metrics.request_ids = ids
    context.cl_socket = service.cl_socket  # where a handler that answers in pieces sends them
    started = time.perf_counter()
    try:
        outputs = service._entry_point([RawBody(each) for each in inputs], context)
    except PredictionException as exc:
        return _failed(rows, started, int(exc.error_code), str(exc.message))
    except MemoryError:
        return _failed(rows, started, OUT_OF_RESOURCES, "out of memory")
    except (Exception, SystemExit) as exc:
        return _failed(rows, started, 500, f"{type(exc).__name__}: {exc}")
    seconds = time.perf_counter() - started
    if not isinstance(outputs, list):
        return _failed(rows, started, 500, f"returned {type(outputs).__name__}, not a list with one answer a row")
    if len(outputs) != len(rows):
        return _failed(rows, started, 500, f"returned {len(outputs)} answers for {len(rows)} rows")
    return {"seconds": seconds, "answers": [_answer(context, index, each) for index, each in enumerate(outputs)]}


def _answer(context: Any, index: int, output: object) -> dict[str, Any]:
    status, _ = context.get_response_status(index)
    try:
        kind, body = _encoded(output)
    except (TypeError, ValueError, RecursionError) as exc:
        status, kind, body = 500, "error", f"its answer cannot be encoded: {exc}".encode()
    return {
        "status": int(status or 200),
        "kind": kind,
        "content_type": context.get_response_content_type(index),
        "body": base64.b64encode(body).decode(),
    }


def _encoded(output: object) -> tuple[str, bytes]:
    import torch

    if isinstance(output, bytes | bytearray):
        return "bytes", bytes(output)
    if isinstance(output, str):
        return "text", output.encode()
    tensor = encoder.as_tensor(output)
    if tensor is not None:
        tensor = tensor.detach().cpu()
        values = tensor.float().tolist() if tensor.dtype == torch.bfloat16 else tensor.tolist()
        return "tensor", json.dumps(
            {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "values": values}
        ).encode()
    return "json", encoder.answer_json(output, nonfinite="allow")  # compared as it is


def load_encoder(file: str) -> Any:
    """Return the module at ``file``, which no import finds."""
    spec = importlib.util.spec_from_file_location("_marway_answer_json", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _failed(rows: list[dict[str, Any]], started: float, status: int, message: str) -> dict[str, Any]:
    body = base64.b64encode(message.encode(errors="replace")).decode()
    one = {"status": status, "kind": "error", "content_type": None, "body": body}
    return {"seconds": time.perf_counter() - started, "answers": [one for _ in rows]}


def main() -> None:
    """Serve calls until the other end is closed."""
    global encoder
    descriptor, job_file = int(sys.argv[1]), sys.argv[2]
    os.set_inheritable(descriptor, False)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    encoder = load_encoder(job["encoder"])
    # Before the handler's own modules are on the path.
    import marway.wire.raw_body  # noqa: F401
    from marway.archives.handler_failure import handler_failure

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
            rows = [job["inputs"][index] for index in json.loads(line)["rows"]]
            before = service.cl_socket.pieces
            answered = answer(service, rows)
            send({**answered, "pieces": service.cl_socket.pieces - before})


if __name__ == "__main__":
    main()
