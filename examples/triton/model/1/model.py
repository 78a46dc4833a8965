"""Which digit is on a picture of 8 by 8 pixels: a model in Python for Triton, which runs it in a process of its own."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Its name is Triton's matter."""

    def initialize(self, args):
        """Load the weights that lie beside this file."""
        with np.load(Path(__file__).with_name("weights.npz")) as found:
            self.weights, self.bias = found["weights"], found["bias"]

    def execute(self, requests):
        """Answer every request of a batch."""
        responses = []
        for request in requests:
            pixels = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
            logits = pixels @ self.weights + self.bias
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
            digits = probabilities.argmax(axis=1, keepdims=True).astype(np.int64)
            responses.append(
                pb_utils.InferenceResponse(
                    [pb_utils.Tensor("digit", digits), pb_utils.Tensor("probabilities", probabilities)]
                )
            )
        return responses
