"""A handler that shows what it was given, and fails on request."""

import json
import os

from ts.utils.util import PredictionException


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    return [answer(row, index, context) for index, row in enumerate(data)]


def answer(row, index, context):
    value = row.get("data")
    if value is None:
        return {name: bytes(part).decode() if isinstance(part, bytearray) else part for name, part in row.items()}
    if isinstance(value, dict) and "status" in value:
        context.set_response_status(code=value["status"], idx=index)
        context.set_response_header(index, "x-probe", "set by the handler")
        context.set_response_content_type(index, "text/csv")
        return "a,b"
    text = (
        value
        if isinstance(value, str)
        else bytes(value).decode()
        if isinstance(value, bytearray)
        else json.dumps(value)
    )
    if text == "boom":
        print("about to fail on purpose")
        raise ValueError("the input said boom")
    if text == "secrets":
        return sorted(name for name in os.environ if name.startswith(("AWS_", "MARWAY_")))
    if text == "die":
        os._exit(3)
    if text == "refuse":
        raise PredictionException("refused by the model", 422)
    if text == "ids":
        names = ("x-request-id", "x-request-group-id", "traceparent", "tracestate")
        seen = {name: context.get_request_header(index, name) for name in names}
        return json.dumps({**seen, "id": context.get_request_id(index)})
    if text == "explain":
        return json.dumps(context.get_request_header(index, "explain"))
    if text == "bytes":
        return b"\x00\x01\x02"
    if text == "text":
        return "plain text"
    return {
        "type": type(value).__name__,
        "value": text,
        "model": context.model_name,
        "request_id": context.get_request_id(index),
        "content_type": context.get_request_header(index, "content-type"),
    }
