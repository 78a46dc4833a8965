"""A handler that answers when it is let: with `{"hold": PATH}` it waits until there is a file at PATH."""

import os
import time
from pathlib import Path

_LONGEST_S = 60


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    return [answer(row["data"]) for row in data]


def answer(value):
    path = Path(value["hold"])
    with path.with_name(f"{path.name}.reached").open("a") as reached:
        reached.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + _LONGEST_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"pid": os.getpid()}
