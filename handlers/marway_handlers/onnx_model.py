"""ONNX models: one row of named tensors in, its outputs out, through onnxruntime."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, ModelHandler
    from marway_handlers.marway_handler_rows import KEYS, Wanted, groups, parsed, plain
else:  # in an archive, beside this file
    from marway_handler_base import Failure, ModelHandler
    from marway_handler_rows import KEYS, Wanted, groups, parsed, plain

TYPES = {
    "tensor(bool)": "BOOL", "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32", "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32", "tensor(uint64)": "UINT64",
    "tensor(string)": "BYTES",
}  # fmt: skip


class OnnxHandler(ModelHandler):
    """Runs an ONNX model, rows of the same shapes in one call.

    The archive carries the model as its serialized file, with files of external data beside it. The first dimension of
    each input is the batch; a model in which it is fixed to 1 gets each row alone.

    A row holds the input of a model that has one, as JSON lists, bare or under its name or one of ``keys``, as a `.npy`
    file or as raw little-endian bytes; of a model with several a JSON object of them by name. It is answered with the
    output's nested lists, of a model with several with an object of them by name; a row that is no such input with
    status 400 and ``{"error": "…"}`` as its own answer, one whose answer holds a number that JSON has not with 500.
    """

    keys = KEYS

    def load(self, manifest: dict[str, str]) -> Any:
        """Return a session of onnxruntime, on the GPU where there is one and onnxruntime was built for it."""
        import onnxruntime

        if not manifest.get("serializedFile"):
            raise RuntimeError("the archive's manifest names no serializedFile")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1") or 1)
        able = onnxruntime.get_available_providers()
        wanted = ["CPUExecutionProvider"]
        if self.device.type == "cuda" and "CUDAExecutionProvider" in able:
            wanted.insert(0, "CUDAExecutionProvider")
        return onnxruntime.InferenceSession(str(self.directory / manifest["serializedFile"]), options, providers=wanted)

    def prepare(self) -> None:
        """Read what the model takes; what it cannot be given is refused."""
        inputs = self.model.get_inputs()
        for each in inputs:
            if each.type not in TYPES:
                raise RuntimeError(f"the model's input {each.name} is a {each.type}, which no request can carry")
            if not each.shape:
                raise RuntimeError(f"the model's input {each.name} has no batch dimension: export it with one")
        fixed = {each.shape[0] for each in inputs if isinstance(each.shape[0], int)} - {1}
        if fixed:
            raise RuntimeError(
                f"the model takes exactly {min(fixed)} rows in a call: export it with a dynamic first dimension"
            )
        self.single = any(each.shape[0] == 1 for each in inputs)
        self.wanted = [
            Wanted(each.name, TYPES[each.type], tuple(_side(side) for side in each.shape[1:])) for each in inputs
        ]
        self.outputs = [each.name for each in self.model.get_outputs()]

    def parse(self, value: Any) -> Any:
        """Return a row's tensors; a ValueError says what is wrong with one."""
        return parsed(value, self.wanted)

    def accepted(self) -> str:
        """Return what a row may hold."""
        return f"the model takes {', '.join(each.shown() for each in self.wanted)}"

    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        """Return the answer to each row."""
        found: list[Any] = [None] * len(inputs)
        for places in groups(inputs, single=self.single):
            given = {
                each.name: np.stack([inputs[place][number] for place in places])
                for number, each in enumerate(self.wanted)
            }
            results = self.model.run(None, given)
            for name, result in zip(self.outputs, results, strict=True):
                if len(result) != len(places):
                    raise RuntimeError(
                        f"for {len(places)} rows the model gives {len(result)} values of {name}, not one a row"
                    )
            for number, place in enumerate(places):
                found[place] = self._row([result[number] for result in results])
        return iter(found)

    def _row(self, values: list[Any]) -> Any:
        # Classifiers converted from scikit-learn give a mapping of scores a row (ZipMap).
        rows = [
            {str(key): float(score) for key, score in value.items()} if isinstance(value, dict) else plain(value)
            for value in values
        ]
        failed = next((row for row in rows if isinstance(row, Failure)), None)
        if failed is not None:
            return failed
        return rows[0] if len(rows) == 1 else dict(zip(self.outputs, rows, strict=True))


def _side(side: Any) -> int:
    return side if isinstance(side, int) and side >= 0 else -1
