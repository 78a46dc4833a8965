"""Makes the model of `handler.py`, and the requirements of its archive: `python train.py`.

Put an export of your own here: `torch.onnx.export`, `skl2onnx`, … all write such a file.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH = 4

weights = numpy_helper.from_array(np.linspace(-1, 1, WIDTH * 2, dtype=np.float32).reshape(WIDTH, 2), "weights")
graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ],
    "classifier",
    [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", WIDTH])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
    [weights],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, "model.onnx")
Path("requirements.txt").write_text(f"onnxruntime=={onnxruntime.__version__}\n")
print("model.onnx written")
