"""The tiny model behind LitServe: `litserve_server.py PORT [ROWS]`, with batches of so many rows; JSON, one worker."""

import sys

import litserve
from tiny import Tiny


class Served(litserve.LitAPI):
    def setup(self, device):
        self.tiny = Tiny()
        self.tiny.initialize(None)

    def decode_request(self, request):
        return request["input"]

    def predict(self, rows):
        if isinstance(rows, str):
            return self.tiny.answers([rows])[0]
        return self.tiny.answers(rows)

    def batch(self, inputs):
        return list(inputs)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    api = Served(max_batch_size=rows, batch_timeout=0.001 if rows > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
