"""The tiny model behind BentoML, answering one by one or in batches (`TINY_ROWS`): JSON, one worker."""

import os

import bentoml
from tiny import Tiny

ROWS = int(os.environ.get("TINY_ROWS", "1"))


class Model:
    def __init__(self) -> None:
        self.tiny = Tiny()
        self.tiny.initialize(None)


if ROWS > 1:

    @bentoml.service(workers=1)
    class Served(Model):
        @bentoml.api(batchable=True, max_batch_size=ROWS)
        def predict(self, text: list[str]) -> list[list[float]]:
            return self.tiny.answers(text)

else:

    @bentoml.service(workers=1)
    class Served(Model):
        @bentoml.api
        def predict(self, text: str) -> list[float]:
            return self.tiny.answers([text])[0]
