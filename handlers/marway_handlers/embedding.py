"""Embeddings: one text or one tensor a row in, one vector of length 1 out."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, ModelHandler, decoded, one_text, unwrapped
else:  # in an archive, beside this file
    from marway_handler_base import Failure, ModelHandler, decoded, one_text, unwrapped

DIGITS = 7


class EmbeddingHandler(ModelHandler):
    """Turns texts or tensors into vectors of length 1 with an eager-mode model, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments and either has ``encode(texts)``, which
      gives a tuple of tensors for ``forward(*encoded)``, or the attribute ``input_shape`` (of one row), whose
      ``forward`` takes float32 numbers of shape (N, *input_shape). ``forward`` gives vectors of shape (N, width);
    - a serialized file with its ``state_dict``.

    A row holds a text or lists of the same as JSON, bare or under one of ``keys``. It is answered with
    ``{"embedding": [float, ...]}``, a vector of Euclidean length 1; a row that is no such input with status 400 and
    ``{"error": "…"}`` as its own answer, one whose vector has no direction (all zeros or a number that is not finite)
    with status 500. Its neighbours are not touched.
    """

    keys = ("text", "document", "data", "inputs", "instances")

    def prepare(self) -> None:
        self.takes_text = hasattr(self.model, "encode")
        if not self.takes_text and not hasattr(self.model, "input_shape"):
            raise RuntimeError("the model has neither encode(texts) nor input_shape")
        self.shape = () if self.takes_text else tuple(int(side) for side in self.model.input_shape)
        self._vectors(["warm up"] * 2 if self.takes_text else [np.ones(self.shape, np.float32)] * 2)

    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        for vector in self._vectors(inputs).tolist():
            finite = all(map(math.isfinite, vector))
            if finite and any(vector):
                # Seven digits are what float32 holds; the rest would only make answers longer.
                yield {"embedding": [round(number, DIGITS) for number in vector]}
            else:
                yield Failure("the model's vector has no direction", nonfinite=not finite)

    @torch.inference_mode()
    def _vectors(self, inputs: list[Any]) -> torch.Tensor:
        if self.takes_text:
            encoded = [tensor.to(self.device) for tensor in self.model.encode(inputs)]
        else:
            encoded = [torch.from_numpy(np.stack(inputs)).to(self.device)]
        vectors = self.model(*encoded)
        if not isinstance(vectors, torch.Tensor) or vectors.dim() != 2 or vectors.shape[0] != len(inputs):
            got = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
            raise RuntimeError(f"for {len(inputs)} rows the model gives {got}, not one vector a row")
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()

    def parse(self, value: Any) -> Any:
        if self.takes_text:
            return one_text(value, self.keys)
        value = decoded(value, "the body is not UTF-8 text")
        if isinstance(value, str):
            if not value.strip():
                raise ValueError("the body is empty")
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("the body is not valid JSON") from None
        return self._array(unwrapped(value, self.keys, (dict, str)))

    def accepted(self) -> str:
        what = "one text" if self.takes_text else f"{'x'.join(map(str, self.shape))} numbers as lists"
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return f"send {what}, bare or as JSON under one of {keys}"

    def _array(self, value: Any) -> npt.NDArray[np.float32]:
        try:
            raw = np.asarray(value)
        except ValueError:
            raise ValueError("the lists of numbers are not all of one length") from None
        if raw.dtype.kind not in "biuf":
            raise ValueError("an item is not a number")
        flat = math.prod(self.shape)
        if raw.shape not in (self.shape, (1, *self.shape), (flat,), (1, flat)):
            raise ValueError(f"the tensor has the shape {'x'.join(map(str, raw.shape)) or 'of one number'}")
        # Compared so that NaN fails too, and before float32 can overflow.
        if not bool(np.all(np.abs(raw.astype(np.float64)) <= np.finfo(np.float32).max)):
            raise ValueError("an item is out of range")
        return raw.reshape(self.shape).astype(np.float32)
