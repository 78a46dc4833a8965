"""Which digit is on a picture of 8 by 8 pixels: a runtime of one's own for MLServer."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class Digits(MLModel):
    """Named in model-settings.json."""

    async def load(self) -> bool:
        """Load the weights that the settings name."""
        with np.load(await get_model_uri(self._settings)) as found:
            self.weights, self.bias = found["weights"], found["bias"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request, which may have many rows."""
        (pixels,) = (NumpyCodec.decode_input(each) for each in payload.inputs if each.name == "pixels")
        logits = pixels.reshape(-1, 64) @ self.weights + self.bias
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
        digits = probabilities.argmax(axis=1, keepdims=True).astype(np.int64)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output("digit", digits),
                NumpyCodec.encode_output("probabilities", probabilities),
            ],
        )
