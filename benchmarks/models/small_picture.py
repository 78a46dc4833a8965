"""EfficientNet-Lite0 on pictures of 32 pixels, which two processors answer 200 times a second."""

import io
from pathlib import Path

import numpy
import torch
from PIL import Image

SIDE = 32


class Picture:
    """Answers with the likeliest of 1,000 ImageNet classes, and the scores of three."""

    def initialize(self, context):
        directory = Path(context.system_properties["model_dir"])
        self.model = torch.jit.load(directory / context.manifest["model"]["serializedFile"]).eval()

    @torch.inference_mode()
    def handle(self, data, context):
        pixels = torch.stack([self.read(row.get("data") or row.get("body")) for row in data])
        best = self.model(pixels).softmax(dim=1).topk(3)
        answers = []
        for chances, classes in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            named = {str(index): round(chance, 4) for index, chance in zip(classes, chances, strict=True)}
            answers.append({"label": str(classes[0]), "score": round(chances[0], 4), "scores": named})
        return answers

    def read(self, body):
        picture = Image.open(io.BytesIO(bytes(body))).convert("RGB").resize((SIDE, SIDE))
        values = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
        return (values - 127.0) / 128.0
