"""One call of a handler: requests in, an answer for each out, whatever the handler does.

What it returned for a row travels back encoded as TorchServe encodes it.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from marway.answers.encoding import Nonfinite, answer_json, as_tensor
from marway.wire.envelope import Answer
from marway.wire.headers import UNEXPLAINED, content_type_fault, header_fault, status_fault
from marway.worker.requests import Request, UnusableInput, unexplained

__all__ = [
    "METRICS_FILE",
    "OUT_OF_RESOURCES",
    "Outcome",
    "answer_of",
    "call_async_handler",
    "call_handler",
    "declare_metrics",
    "described_tensor",
]

logger = logging.getLogger(__name__)

OUT_OF_RESOURCES: Final = 507
"""Status of an answer that memory does not suffice for, as TorchServe has it."""
METRICS_FILE: Final = "metrics.yaml"
"""Names in an archive the metrics that its handler asks for by `get_metric`, in the form of TorchServe's own file."""


class Outcome(NamedTuple):
    """What a call gave.

    Attributes:
        answers: One for each request.
        outputs: What the handler returned, when that was one value for each.
        exception: What it raised, if it did.
    """

    answers: list[Answer]
    outputs: Sequence[object] = ()
    exception: BaseException | None = None


def saved_tensor(tensor: Any) -> bytes:
    """Return a tensor as `torch.save` writes it, which is what a client of TorchServe gets."""
    buffer = io.BytesIO()
    sys.modules["torch"].save(tensor, buffer)
    return buffer.getvalue()


def described_tensor(tensor: Any) -> bytes:
    """Return a tensor as the JSON of its `{dtype, shape, values}`, as golden answers are stored."""
    tensor = tensor.detach().cpu()
    dtype = str(tensor.dtype).removeprefix("torch.")
    values = tensor.float().tolist() if dtype == "bfloat16" else tensor.tolist()
    return json.dumps({"dtype": dtype, "shape": list(tensor.shape), "values": values}).encode()


def call_handler(
    entry_point: Callable[[list[dict[str, Any]], Any], Any],
    context: Any,
    requests: Sequence[Request],
    processor: Callable[[Any], Any],
    *,
    tensor: Callable[[Any], bytes] = saved_tensor,
) -> Outcome:
    """Call a handler once with all requests, and return an answer for each.

    ``context``, `ts.context.Context` or what stands in for it, is given to it beside the inputs, and has for each row
    what ``processor`` (`ts.context.RequestProcessor`) makes of its headers. ``tensor`` encodes a returned tensor.
    """
    _begin(context, requests, processor)
    try:
        outputs = entry_point([request.inputs() for request in requests], context)
    except (Exception, SystemExit) as exc:
        return _raised(exc, requests)
    if inspect.iscoroutine(outputs):
        outputs.close()
        message = "the handler is `async def`: its archive's configuration file has to say asyncCommunication: true"
        return Outcome(_failed(len(requests), 500, message))
    return _returned(context, requests, outputs, tensor)


async def call_async_handler(
    entry_point: Callable[[list[dict[str, Any]], Any], Any],
    context: Any,
    requests: Sequence[Request],
    processor: Callable[[Any], Any],
    *,
    tensor: Callable[[Any], bytes] = saved_tensor,
) -> Outcome:
    """Call a handler that is `async def`, as `call_handler` does it; ``context`` is this call's alone.

    Raises:
        asyncio.CancelledError: The call was given up; the handler was told by this exception.
    """
    _begin(context, requests, processor)
    try:
        outputs = entry_point([request.inputs() for request in requests], context)
        if not inspect.isawaitable(outputs):
            message = "its archive says asyncCommunication, and the handler is not `async def`"
            return Outcome(_failed(len(requests), 500, message))
        outputs = await outputs
    except (Exception, SystemExit) as exc:
        return _raised(exc, requests)
    return _returned(context, requests, outputs, tensor)


def _begin(context: Any, requests: Sequence[Request], processor: Callable[[Any], Any]) -> None:
    """Put into the context what is of this call."""
    context.request_ids = {index: request.request_id for index, request in enumerate(requests)}
    context.request_processor = [processor(request.headers) for request in requests]
    context.metrics.request_ids = context.request_ids


def _raised(exc: BaseException, requests: Sequence[Request]) -> Outcome:
    status, message = _failure(exc, explains=any(request.headers.explains for request in requests))
    return Outcome(_failed(len(requests), status, message), exception=exc)


def _returned(context: Any, requests: Sequence[Request], outputs: Any, tensor: Callable[[Any], bytes]) -> Outcome:
    count = len(requests)
    if not isinstance(outputs, list):
        message = f"the handler returned {type(outputs).__name__}, not a list with one answer a row"
        return Outcome(_failed(count, 500, message))
    if len(outputs) != count:
        return Outcome(_failed(count, 500, f"the handler returned {len(outputs)} answers for {count} rows"))
    answers = [
        answer_of(context, index, output, nonfinite=request.nonfinite, tensor=tensor)
        for index, (request, output) in enumerate(zip(requests, outputs, strict=True))
    ]
    if count and requests[0].headers.explains and unexplained([request.headers for request in requests]):
        answers = [replace(answer, headers={**answer.headers, UNEXPLAINED: "1"}) for answer in answers]
    return Outcome(answers, outputs)


def answer_of(
    context: Any,
    index: int,
    output: object,
    *,
    nonfinite: Nonfinite = "error",
    tensor: Callable[[Any], bytes] = saved_tensor,
) -> Answer:
    """Return the answer to row ``index``: the output, with the status and headers that the handler set.

    What the handler set that cannot be sent makes it an error, of this row alone. ``nonfinite`` says what becomes of
    numbers that JSON has not, ``tensor`` encodes a tensor.
    """
    try:
        status, content_type, headers = _set_by_handler(context, index)
    except Exception as exc:  # whatever the handler's own values do when they are read
        logger.error("The handler's status or headers cannot be sent.", exc_info=True)
        return Answer(500, f"what the handler set cannot be sent: {exc}".encode(errors="replace"), "error")
    try:
        body, kind = _encoded(output, nonfinite, tensor)
    except (RuntimeError, TypeError, ValueError) as exc:
        logger.error("The handler's answer cannot be encoded.", exc_info=True)
        return Answer(500, f"the handler's answer cannot be encoded: {exc}".encode(), "error")
    return Answer(status, body, kind, content_type, headers)


def _set_by_handler(context: Any, index: int) -> tuple[int, str | None, dict[str, str]]:
    """Return the status, content type and other headers that the handler set.

    Raises:
        ValueError: They cannot be sent. The phrase beside the status never is.
        Exception: They are no numbers or texts.
    """
    code, _ = context.get_response_status(index)
    status = int(code or 200)
    set_headers = context.get_response_headers(index)
    headers = {str(name): str(value) for name, value in set_headers.items()} if set_headers else {}
    content_type = None
    for name in [name for name in headers if name.lower() == "content-type"]:
        content_type = headers.pop(name)
    fault = status_fault(status) or content_type_fault(content_type) or header_fault(headers)
    if fault is not None:
        raise ValueError(fault)
    return status, content_type, headers


def _encoded(output: object, nonfinite: Nonfinite, encode_tensor: Callable[[Any], bytes]) -> tuple[bytes, str]:
    """Return the handler's answer encoded as TorchServe encodes it, and what it was."""
    if isinstance(output, (bytes, bytearray)):
        return bytes(output), "bytes"
    if isinstance(output, str):
        return output.encode(), "text"
    tensor = as_tensor(output)
    if tensor is not None:
        return encode_tensor(tensor), "tensor"
    return answer_json(output, nonfinite=nonfinite), "json"


def _failed(rows: int, status: int, message: str) -> list[Answer]:
    """Return the same failure for each of ``rows``."""
    return [Answer(status, message.encode(errors="replace"), "error")] * rows


def declare_metrics(cache: Any, model_dir: str) -> None:
    """Declare, in TorchServe's cache of metrics, those that an archive's own `METRICS_FILE` names, if it has one.

    Raises:
        ts.metrics.metric_cache_errors.MetricsCacheError: It is none; the version then does not load.
    """
    path = Path(model_dir) / METRICS_FILE
    if cache is None or not path.is_file():
        return
    own = type(cache)(config_file_path=str(path))
    own.initialize_cache()
    for kind, metrics in own.cache.items():
        cache.cache.setdefault(kind, {}).update(metrics)


def _failure(exc: BaseException, *, explains: bool) -> tuple[int, str]:
    """Log what a handler raised, and return the status and the message that stand for it."""
    if isinstance(exc, UnusableInput):
        return 400, str(exc)
    refusal: Any = getattr(sys.modules.get("ts.utils.util"), "PredictionException", None)
    if refusal is not None and isinstance(exc, refusal):
        logger.error("The handler refused the request.", exc_info=exc)
        code = getattr(exc, "error_code", None)
        known = isinstance(code, int) and 400 <= code <= 599
        return code if known else 500, str(getattr(exc, "message", exc))  # type: ignore[return-value]  # it is a number
    if isinstance(exc, MemoryError):
        logger.error("Out of memory.", exc_info=exc)
        return OUT_OF_RESOURCES, "the model ran out of memory"
    if isinstance(exc, SystemExit):
        logger.error("The handler ended its process.", exc_info=exc)
    else:
        logger.error("The handler raised %s.", type(exc).__name__, exc_info=exc)
    if explains and isinstance(exc, AttributeError) and exc.name == "get_insights":
        # What TorchServe's own base handler explains with, and leaves to those who derive from it.
        return 501, "the model has no explanations: its handler has no `get_insights`"
    if "CUDA" in str(exc):
        return OUT_OF_RESOURCES, f"the model ran out of GPU memory: {exc}"
    return 500, f"{type(exc).__name__}: {exc}"
