"""A picture classifier: JPEG or PNG in, the five likeliest of 1,000 ImageNet classes out, a batch in one go.

The network is a TorchScript file beside it, so that the worker needs neither the package it came from nor torchvision.
"""

import io
import json
from pathlib import Path

import numpy
import torch
from PIL import Image

SIDE = 224
ENLARGED = 256  # the shorter side, before the middle is cut out, as the network was trained


class Picture:
    """Answers each row with pairs of class and probability."""

    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        torch.set_num_threads(1)
        directory = Path(context.system_properties["model_dir"])
        self.model = torch.jit.load(directory / context.manifest["model"]["serializedFile"]).eval()
        self.initialized = True

    def handle(self, data, context):
        pixels = torch.stack([self.read(row.get("data") or row.get("body")) for row in data])
        with torch.inference_mode():
            chances, classes = self.model(pixels).softmax(dim=1).topk(5)
        return [
            json.dumps([[index, round(chance, 2)] for index, chance in zip(*row, strict=True)])
            for row in zip(classes.tolist(), chances.tolist(), strict=True)
        ]

    def read(self, body):
        picture = Image.open(io.BytesIO(bytes(body))).convert("RGB")
        scale = ENLARGED / min(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BILINEAR)
        left, top = ((side - SIDE) // 2 for side in picture.size)
        picture = picture.crop((left, top, left + SIDE, top + SIDE))
        values = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
        return (values - 127.0) / 128.0  # what EfficientNet-Lite was trained on
