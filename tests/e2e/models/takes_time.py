"""A handler that takes its time over each call, and gives back what each row of it had."""

import time

_CALL_S = 0.03


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    time.sleep(_CALL_S)
    return [f"to {text(row['data'])}" for row in data]


def text(value):
    return value if isinstance(value, str) else bytes(value).decode()
