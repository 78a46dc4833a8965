"""The tiny model behind the KServe SDK: `kserve_server.py PORT`. Protocol v1; the model runs in the web process."""

import sys

from kserve import Model, ModelServer
from tiny import Tiny


class Served(Model):
    def __init__(self) -> None:
        super().__init__("tiny")
        self.tiny = Tiny()
        self.tiny.initialize(None)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": self.tiny.answers(payload["instances"])}


if __name__ == "__main__":
    server = ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1)
    server.start([Served()])
