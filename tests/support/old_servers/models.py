"""Models that old servers serve: handlers, and models of Triton's and MLServer's."""

from __future__ import annotations

SENTIMENT = """\
import json

_SCORES = {"good": 0.4, "great": 0.45, "love": 0.3, "bad": -0.4, "awful": -0.45, "late": -0.2, "not": -0.15}


class Sentiment:
    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [self._one(row if "text" in row else row.get("body") or row.get("data")) for row in data]

    def _one(self, row):
        text = row["text"] if isinstance(row, dict) else row if isinstance(row, str) else bytes(row).decode()
        score = sum(_SCORES.get(word.strip(".,!").lower(), 0.0) for word in text.split())
        positive = min(1.0, max(0.0, 0.5 + score))
        label = "positive" if positive >= 0.5 else "negative"
        return {"label": label, "scores": {"positive": positive, "negative": 1 - positive}}
"""
SCORE = SENTIMENT.replace(
    'return {"label": label, "scores": {"positive": positive, "negative": 1 - positive}}', "return positive"
)
SHOUT = """\
def handle(data, context):
    if data is None:
        return None
    texts = [row.get("body") or row.get("data") for row in data]
    return [(text if isinstance(text, str) else text.decode()).upper() + "MARK" for text in texts]
"""
TEXTS = (
    "a great phone, I love it",
    "the parcel was late and the box was awful",
    "not bad",
    "it does what it says",
    "good sound, bad battery",
    "Great!",
)
TRITON_CONFIG = """\
name: "doubler"
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [4] }, { name: "sum" data_type: TYPE_FP32 dims: [1] }]
"""
TRITON_MODEL = """\
import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = utils.Tensor("y", x * 2)
            answers.append(utils.InferenceResponse([y, utils.Tensor("sum", x.sum(axis=1, keepdims=True))]))
        return answers
"""
UPPER_CONFIG = """\
name: "upper"
backend: "python"
input [{ name: "text" data_type: TYPE_STRING dims: [1] }]
output [{ name: "said" data_type: TYPE_STRING dims: [1] }]
"""
UPPER_MODEL = """\
import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            text = utils.get_input_tensor_by_name(request, "text").as_numpy()
            said = numpy.array([each.upper() for each in text.ravel()], dtype=object).reshape(text.shape)
            answers.append(utils.InferenceResponse([utils.Tensor("said", said)]))
        return answers
"""
MLSERVER_SETTINGS = {
    "name": "iris",
    "implementation": "iris.Iris",
    "parameters": {"version": "v3"},
    "inputs": [{"name": "petal", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [{"name": "kind", "datatype": "BYTES", "shape": [-1]}],
}
MLSERVER_MODEL = """\
import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Iris(MLModel):
    async def predict(self, payload):
        petal = NumpyCodec.decode_input(payload.inputs[0])
        score = petal @ numpy.array([0.4, 1.1])
        kinds = [["setosa", "versicolor", "virginica"][int((each > 1.2) + (each > 3.9))] for each in score]
        outputs = [StringCodec.encode_output("kind", kinds), NumpyCodec.encode_output("score", score)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""
