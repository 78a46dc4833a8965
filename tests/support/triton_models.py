"""Models in Python for a real Triton: each is a directory with `config.pbtxt` and `1/model.py`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DATATYPES", "MODELS", "write_model"]

DATATYPES = (
    *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)
_HEAD = """
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


def tensor(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


class TritonPythonModel:
"""
_IDENTITY = """
    def execute(self, requests):
        return [pb_utils.InferenceResponse(output_tensors=list(request.inputs())) for request in requests]
"""
_FIVE = """
    def execute(self, requests):
        answers = []
        for request in requests:
            x = tensor(request, "x")
            parameters = json.dumps({"id": request.request_id(), **json.loads(request.parameters())}, sort_keys=True)
            outputs = [pb_utils.Tensor(name, x * scale) for name, scale in (("double", 2), ("half", np.float32(0.5)))]
            said = np.array([[parameters.encode()]] * len(x), object)
            answers.append(pb_utils.InferenceResponse(output_tensors=[*outputs, pb_utils.Tensor("said", said)]))
        return answers
"""
_PIECES = """
    def execute(self, requests):
        for request in requests:
            sender, count = request.get_response_sender(), int(tensor(request, "n").reshape(-1)[0])
            for number in range(min(count, 100)):
                time.sleep(0.001)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("x", np.array([number], np.int32))]))
            if count > 100:
                error = pb_utils.TritonError(f"{count} are too many")
                sender.send(pb_utils.InferenceResponse(error=error))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
_SUM = """
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            key = request.correlation_id()
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
                self.sums[key] = 0
            self.sums[key] += int(tensor(request, "x").sum())
            total = np.full((1, 1), self.sums[key], np.int32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("sum", total)]))
        return answers
"""


def _side(side: str, **tensors: str) -> str:
    described = ", ".join(
        f'{{ name: "{name}" data_type: TYPE_{kind.partition(":")[0]} dims: [ {kind.partition(":")[2] or -1} ] }}'
        for name, kind in tensors.items()
    )
    return f"{side} [ {described} ]\n"


def _config(batch: int, inputs: dict[str, str], outputs: dict[str, str], more: str = "") -> str:
    return f"max_batch_size: {batch}\n{_side('input', **inputs)}{_side('output', **outputs)}{more}"


def _identity(datatype: str) -> tuple[str, str]:
    kind = {"x": "STRING" if datatype == "BYTES" else datatype}
    return _config(8, kind, kind), _IDENTITY


MODELS: dict[str, tuple[str, str]] = {
    **{f"same-{each.lower()}": _identity(each) for each in DATATYPES},
    "five": (_config(8, {"x": "FP32"}, {"double": "FP32", "half": "FP32", "said": "STRING:1"}), _FIVE),
    "pieces": (
        _config(0, {"n": "INT32:1"}, {"x": "INT32:1"}, "model_transaction_policy { decoupled: True }\n"),
        _PIECES,
    ),
    "sum": (
        _config(
            1,
            {"x": "INT32:1"},
            {"sum": "INT32:1"},
            "sequence_batching { max_sequence_idle_microseconds: 60000000 oldest { max_candidate_sequences: 4 } }\n",
        ),
        _SUM,
    ),
}
"""By name: the configuration without name and backend, and the methods of its `TritonPythonModel`.

`same-DATATYPE` give back their input `x`; `five` gives several outputs, of which `said` is what it was told beside
tensors; `pieces` is decoupled, and answers `n` with so many responses, or an error after a hundred; `sum` keeps a sum
for each sequence.
"""


def write_model(directory: Path, name: str, config: str, methods: str) -> Path:
    """Write a model, under its name, into a directory; return its own."""
    model = directory / name
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(_HEAD + methods)
    (model / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "python"\n{config}')
    return model
