"""What a handler returned for a row, as the `Answer` that travels back: encoded as TorchServe encodes it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from marway.answers.encoding import Nonfinite, answer_json, as_tensor
from marway.wire.envelope import Answer
from marway.wire.headers import content_type_fault, header_fault, status_fault

__all__ = ["answer_of", "described_tensor", "failed", "saved_tensor"]

logger = logging.getLogger(__name__)


def answer_of(
    context: Any,
    index: int,
    output: object,
    *,
    nonfinite: Nonfinite = "error",
    tensor: Callable[[Any], bytes] | None = None,
) -> Answer:
    """Return the answer to row ``index``: the output, with the status and headers that the handler set.

    What the handler set that cannot be sent makes it an error, of this row alone.

    Args:
        context: The handler's.
        index: Which row.
        output: What the handler returned for it.
        nonfinite: What becomes of numbers that JSON has not.
        tensor: Encodes a tensor; `saved_tensor` by default.
    """
    try:
        status, content_type, headers = _set_by_handler(context, index)
    except Exception as exc:  # whatever the handler's own values do when they are read
        logger.error("The handler's status or headers cannot be sent.", exc_info=True)
        return Answer(500, f"what the handler set cannot be sent: {exc}".encode(errors="replace"), "error")
    try:
        body, kind = _encoded(output, nonfinite, tensor or saved_tensor)
    except (RuntimeError, TypeError, ValueError) as exc:
        logger.error("The handler's answer cannot be encoded.", exc_info=True)
        return Answer(500, f"the handler's answer cannot be encoded: {exc}".encode(), "error")
    return Answer(status, body, kind, content_type, headers)


def failed(rows: int, status: int, message: str) -> list[Answer]:
    """Return the same failure for each of ``rows``."""
    return [Answer(status, message.encode(errors="replace"), "error")] * rows


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
