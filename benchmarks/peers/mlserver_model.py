"""The tiny model behind MLServer: Open Inference Protocol v2 as JSON, in the web process or in batches there."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse
from numpy import array
from tiny import Tiny


class Served(MLModel):
    async def load(self) -> bool:
        self.tiny = Tiny()
        await asyncio.to_thread(self.tiny.initialize, None)
        return True

    async def predict(self, payload):
        rows = StringCodec.decode_input(payload.inputs[0])
        answers = array(self.tiny.answers(rows), dtype="float32")
        return InferenceResponse(
            model_name=self.name, id=payload.id, outputs=[NumpyCodec.encode_output("answer", answers)]
        )
