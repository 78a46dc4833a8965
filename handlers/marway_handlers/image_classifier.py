"""Image classification: one greyscale image a row in, one label with its score out."""

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Classifier, decoded, unwrapped
else:  # in an archive, beside this file
    from marway_handler_base import Classifier, decoded, unwrapped

PNG = b"\x89PNG"
MAGIC = (PNG + b"\r\n\x1a\n", b"\xff\xd8\xff")
MAX_PIXELS = 4096 * 4096


class ImageClassifier(Classifier):
    """Classifies greyscale images with an eager-mode model, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments, with the attributes ``input_size``
      (height, width) and ``max_value`` (brightest pixel; the darkest is 0), whose ``forward`` takes float32 pixels of
      shape (number of images, height, width) and gives logits of shape (number of images, number of labels);
    - a serialized file with its ``state_dict``;
    - ``labels.json``: a list of the labels, in the order of the logits.

    A row holds a list of rows of pixels or one flat list of them (0 to ``max_value``), the same as JSON, or the bytes
    of a PNG or JPEG picture, light ink on a dark ground, of any size (in JSON as base64). It is answered with
    ``{"label": str, "score": float, "scores": {label: float}}``, scores from 0 to 1 with the best three first; a row
    that is no such image with status 400 and ``{"error": "…"}`` as its own answer, one whose scores are no numbers
    (NaN) with status 500. Its neighbours are not touched.
    """

    keys = ("image", "data", "instances", "inputs", "b64")

    def prepare(self) -> None:
        self.height, self.width = (int(side) for side in self.model.input_size)
        self.max_value = float(self.model.max_value)
        super().prepare()

    def sample(self) -> Any:
        return np.zeros((self.height, self.width), np.float32)

    @torch.inference_mode()
    def probabilities(self, inputs: list[npt.NDArray[np.float32]]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(inputs)).to(self.device)
        return torch.softmax(self.model(pixels).float(), dim=-1).cpu()

    def parse(self, value: Any) -> npt.NDArray[np.float32]:
        """Return the pixels: float32 of shape (height, width), 0 to ``max_value``."""
        value = unwrapped(_parse(value), self.keys, (dict, str))
        if isinstance(value, str):
            value = _base64(value)
        return self._picture(value) if isinstance(value, bytes) else self._array(value)

    def accepted(self) -> str:
        return (
            f"send {self.height}x{self.width} pixels from 0 to {self.max_value:g} as a list (nested or flat, bare or "
            f'under "image", "data" or "instances"), or a PNG or JPEG picture'
        )

    def _array(self, value: object) -> npt.NDArray[np.float32]:
        try:
            raw = np.asarray(value)
        except ValueError:
            raise ValueError("the lists of pixels are not all of one length") from None
        if raw.dtype.kind not in "iuf":
            raise ValueError("a pixel is not a number")
        flat = self.height * self.width
        leading, trailing = raw.shape[:-2], raw.shape[-2:]
        nested = trailing == (self.height, self.width) and all(side == 1 for side in leading)
        if not nested and raw.shape not in ((flat,), (1, flat)):
            raise ValueError(f"the pixels have the shape {'x'.join(map(str, raw.shape)) or 'of one number'}")
        # Compared so that NaN fails too, and before float32 can overflow.
        if not bool(np.all((raw >= 0) & (raw <= self.max_value))):
            raise ValueError("a pixel is out of range")
        return raw.reshape(self.height, self.width).astype(np.float32)

    def _picture(self, content: bytes) -> npt.NDArray[np.float32]:
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"the picture has more than {MAX_PIXELS} pixels")
                if picture.has_transparency_data:
                    ground = Image.new("RGBA", picture.size, "black")
                    grey = Image.alpha_composite(ground, picture.convert("RGBA")).convert("L")
                else:
                    grey = picture.convert("L")
        except (MemoryError, ValueError):
            raise
        except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over
            raise ValueError(f"the picture cannot be decoded ({type(error).__name__})") from None
        # Box: the mean of the pixels under each new one, as the digits data set itself was reduced from its scans.
        small = grey.resize((self.width, self.height), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32) * np.float32(self.max_value / 255)


def _parse(value: Any) -> Any:
    """Turn what a request carries into picture bytes or a JSON value."""
    if isinstance(value, bytes | bytearray):
        content = bytes(value)
        if content.startswith(MAGIC):
            return content
        if content.startswith(PNG):
            raise ValueError(
                "the body is a PNG picture without its line ends, which `curl -d @FILE` takes out: send it with "
                "`--data-binary @FILE`"
            )
        value = decoded(content, "the body is neither JSON nor a PNG or JPEG picture")
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the body is empty")
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # base64, or nothing that can be read
    return value


def _base64(value: str) -> bytes:
    text = value.partition(",")[2] if value.startswith("data:image/") else value
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        content = b""
    if not content.startswith(MAGIC):
        raise ValueError("the text is neither JSON nor the base64 of a PNG or JPEG picture")
    return content
