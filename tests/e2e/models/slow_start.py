"""A handler whose loading takes until a certain file is in the home directory."""

import os
import time
from pathlib import Path

_LONGEST_S = 60
_PATH = Path.home() / "slow-start-may-go-on"


class Handler:
    def initialize(self, context):
        with _PATH.with_name(f"{_PATH.name}.reached").open("a") as reached:
            reached.write(f"{os.getpid()}\n")
        deadline = time.monotonic() + _LONGEST_S
        while not _PATH.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def handle(self, data, context):
        return ["up" for _ in data]
