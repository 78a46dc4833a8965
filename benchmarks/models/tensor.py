"""A model with a large input: raw little-endian float32 in rows of 1024 through Linear(1024, 4); their mean out."""

import json

import torch

WIDTH = 1024


class Tensor:
    """Answers each row with four numbers, which depend on every value and where it stands in its row."""

    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        torch.set_num_threads(1)
        torch.manual_seed(7)
        self.model = torch.nn.Linear(WIDTH, 4).eval()
        self.initialized = True

    def handle(self, data, context):
        return [json.dumps(self.answer(row.get("data") or row.get("body"))) for row in data]

    def answer(self, body):
        values = torch.frombuffer(bytearray(body), dtype=torch.float32).reshape(-1, WIDTH)
        with torch.inference_mode():
            means = self.model(values).mean(dim=0)
        return [round(value, 3) for value in means.tolist()]
