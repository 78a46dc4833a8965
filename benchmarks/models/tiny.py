"""The smallest model there is: a text of comma-separated numbers through one Linear(16, 4), a batch in one go."""

import json

import torch

WIDTH = 16


class Tiny:
    """Answers each row with four numbers."""

    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        torch.set_num_threads(1)
        torch.manual_seed(7)
        self.model = torch.nn.Linear(WIDTH, 4).eval()
        self.initialized = True

    def handle(self, data, context):
        rows = [row.get("data") or row.get("body") for row in data]
        return [json.dumps(answer) for answer in self.answers([text(row) for row in rows])]

    def answers(self, rows):
        values = torch.tensor([[float(ord(letter)) for letter in row[:WIDTH].ljust(WIDTH)] for row in rows])
        with torch.inference_mode():
            answers = self.model(values / 128)
        return [[round(value, 4) for value in answer] for answer in answers.tolist()]


def text(row):
    return row if isinstance(row, str) else bytes(row).decode()
