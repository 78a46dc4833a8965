"""A handler that tells about the process it runs in, or ends it."""

import os
import random
import subprocess
import sys
import threading
import time

import numpy
import torch

_KEPT = []


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    return [answer(bytes(row.get("data") or row.get("body")).decode()) for row in data]


def answer(text):
    command, _, argument = text.partition(" ")
    if command == "random":
        return [random.random(), float(numpy.random.rand()), float(torch.rand(()))]
    if command == "print":
        print(argument)
        print(argument, file=sys.stderr)
        return "printed"
    if command == "raise":
        raise ValueError(argument)
    if command == "exit":
        os._exit(int(argument))
    if command == "sleep":
        time.sleep(float(argument))
        return "slept"
    if command == "child":
        return os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
    if command == "eat":
        held = []
        while len(held) < int(argument):
            held.append(bytearray(b"x" * (16 << 20)))
            time.sleep(0.02)  # at most 800 MiB a second, for a guard on a busy machine
        return f"has {len(held)}"
    if command == "keep":
        _KEPT.extend(bytearray(b"x" * (16 << 20)) for _ in range(int(argument)))
        return f"has {len(_KEPT)}"
    if command == "signal":
        os.kill(os.getpid(), int(argument))
    if command == "session":
        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid
    if command == "daemon":
        script = (
            "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=s.DEVNULL, start_new_session=True).pid)"
        )
        return int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    return {
        "pid": os.getpid(),
        "cwd": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
        "path": sys.path,
        "arguments": sys.argv,
        "main": sys.modules["__main__"].__file__,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "torch_threads": torch.get_num_threads(),
        "cuda_initialized": torch.cuda.is_initialized(),
    }
