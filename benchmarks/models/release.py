"""A version that may have something wrong with it: another handler answers, and `fault.json` says what breaks.

A fault of a share of the inputs meets the same inputs each time, whichever they are: by a checksum of them.
"""

import importlib
import json
import sys
import time
import zlib
from pathlib import Path

NONFINITE = "x-marway-nonfinite"
_LEAK = []


class Release:
    """Answers as the handler that ``fault.json`` names, but for the fault."""

    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        import torch  # here, so that faults can be tried without

        torch.set_num_threads(1)
        directory = Path(context.system_properties["model_dir"])
        self.fault = json.loads((directory / "fault.json").read_text())
        sys.path.insert(0, str(directory))
        module, name = self.fault["inner"].split(":")
        self.inner = getattr(importlib.import_module(module), name)()
        self.inner.initialize(context)
        self.asked = 0
        if self.fault["kind"] == "more_memory":
            _LEAK.append(bytearray(b"x") * int(self.fault["bytes"]))
        self.initialized = True

    def handle(self, data, context):
        kind, share = self.fault["kind"], self.fault.get("share", 1.0)
        hits = [hit(row, share) for row in data]
        self.asked += len(data)
        begun = time.perf_counter()
        answers = self.inner.handle(data, context)
        if kind == "raises" and any(hits):
            raise ValueError("a word that is not in the vocabulary")
        if kind == "breaks_after" and self.asked > self.fault["after"]:
            raise RuntimeError("the connection pool is used up")
        if kind == "slower":
            time.sleep((time.perf_counter() - begun) * (self.fault["times"] - 1))
        if kind == "late" and any(hits):
            time.sleep(self.fault["seconds"])
        if kind == "leak":
            _LEAK.append(bytearray(b"x") * int(self.fault["bytes"]))
        return [self.changed(kind, answer, at, context) if hits[at] else answer for at, answer in enumerate(answers)]

    def changed(self, kind, answer, at, context):
        if not isinstance(answer, dict) or "label" not in answer:
            return answer
        if kind == "nan":
            if context.request_processor:
                context.set_response_header(at, NONFINITE, "1")
            return {**answer, "score": float("nan")}
        if kind == "silent_nan":
            return {**answer, "score": float("nan")}
        if kind == "renamed":
            return {"class": answer["label"], "score": answer["score"], "scores": answer["scores"]}
        if kind == "without_scores":
            return {"label": answer["label"]}
        if kind == "text_numbers":
            return {**answer, "score": str(answer["score"])}
        if kind == "wrapped":
            return [answer]
        if kind == "plain_text":
            return answer["label"]
        if kind == "swapped":
            one, other = self.fault["labels"]
            return {**answer, "label": {one: other, other: one}.get(answer["label"], answer["label"])}
        if kind in ("wrong", "constant"):
            return {**answer, "label": self.fault["label"]}
        return answer


def hit(row, share):
    if share >= 1:
        return True
    value = row.get("data") if row.get("data") is not None else row.get("body")
    content = bytes(value) if isinstance(value, bytes | bytearray) else json.dumps(value).encode()
    return zlib.crc32(b"fault" + content) % 10_000 < share * 10_000
