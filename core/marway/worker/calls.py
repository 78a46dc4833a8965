"""One call of a handler: requests in, an answer for each out, whatever the handler does."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from marway.wire.envelope import Answer
from marway.wire.headers import UNEXPLAINED
from marway.worker.answers import answer_of, failed, saved_tensor
from marway.worker.requests import Request, UnusableInput, unexplained

__all__ = ["METRICS_FILE", "OUT_OF_RESOURCES", "Outcome", "call_handler", "declare_metrics"]

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


def call_handler(
    entry_point: Callable[[list[dict[str, Any]], Any], Any],
    context: Any,
    requests: Sequence[Request],
    processor: Callable[[Any], Any],
    *,
    tensor: Callable[[Any], bytes] = saved_tensor,
) -> Outcome:
    """Call a handler once with all requests, and return an answer for each.

    Args:
        entry_point: The handler.
        context: What it is given beside the inputs: `ts.context.Context`, or what stands in for it.
        requests: The rows.
        processor: Makes what the context has for each row (`ts.context.RequestProcessor`) of its headers.
        tensor: Encodes a tensor that the handler returns.
    """
    count = len(requests)
    context.request_ids = {index: request.request_id for index, request in enumerate(requests)}
    context.request_processor = [processor(request.headers) for request in requests]
    context.metrics.request_ids = context.request_ids
    try:
        outputs = entry_point([request.inputs() for request in requests], context)
    except (Exception, SystemExit) as exc:
        status, message = _failure(exc, explains=any(request.headers.explains for request in requests))
        return Outcome(failed(count, status, message), exception=exc)
    if not isinstance(outputs, list):
        message = f"the handler returned {type(outputs).__name__}, not a list with one answer a row"
        return Outcome(failed(count, 500, message))
    if len(outputs) != count:
        return Outcome(failed(count, 500, f"the handler returned {len(outputs)} answers for {count} rows"))
    answers = [
        answer_of(context, index, output, nonfinite=request.nonfinite, tensor=tensor)
        for index, (request, output) in enumerate(zip(requests, outputs, strict=True))
    ]
    if count and requests[0].headers.explains and unexplained([request.headers for request in requests]):
        answers = [replace(answer, headers={**answer.headers, UNEXPLAINED: "1"}) for answer in answers]
    return Outcome(answers, outputs)


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
