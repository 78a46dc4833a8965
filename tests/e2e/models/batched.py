"""A handler whose answers do not depend on who else is in the batch, and whose headers show who was.

A row is JSON: `{"say": …}` is answered with a status, a header and a content type of its own; `{"hold": PATH}` waits
until there is a file; `{"raise": …}` fails the whole batch; `{"die": …}` kills the worker.
"""

import os
import time
from pathlib import Path

_LONGEST_S = 60


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    rows = [row["data"] for row in data]
    for row in rows:
        if "raise" in row:
            raise ValueError("a row said raise")
        if "die" in row:
            os._exit(3)
    return [answer(row, index, len(rows), context) for index, row in enumerate(rows)]


def answer(row, index, count, context):
    if "hold" in row:
        path = Path(row["hold"])
        path.with_name(f"{path.name}.reached").touch()
        deadline = time.monotonic() + _LONGEST_S
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return "held"
    context.set_response_header(index, "x-rows", str(count))
    context.set_response_header(index, "x-saw-id", context.get_request_id(index))
    context.set_response_header(index, "x-saw-header", context.get_request_header(index, "x-of-mine") or "")
    if "status" in row:
        context.set_response_status(code=row["status"], idx=index)
        context.set_response_content_type(index, "text/csv")
    return f"said {row['say']}"
