"""TorchScript models: one row of tensors in, its outputs out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, ModelHandler
    from marway_handlers.marway_handler_rows import KEYS, Wanted, groups, parsed, plain, wanted_of
else:  # in an archive, beside this file
    from marway_handler_base import Failure, ModelHandler
    from marway_handler_rows import KEYS, Wanted, groups, parsed, plain, wanted_of


class TorchScriptHandler(ModelHandler):
    """Runs a TorchScript model, rows of the same shapes in one forward pass.

    The archive carries the model as its serialized file, and may carry `signature.json`, which names its inputs in the
    order of ``forward``, with type and shape (the first dimension is the batch). Without it the model has one input,
    float32 of any shape.

    A row holds the input of a model that has one, as JSON lists, bare or under its name or one of ``keys``, or as a
    `.npy` file; of a model with several a JSON object of them by name. It is answered with the output's nested lists:
    of a tuple with a list of them, of a dictionary with an object. A row that is no such input gets status 400 and
    ``{"error": "…"}`` as its own answer, one whose answer holds a number that JSON has not status 500.
    """

    keys = KEYS

    def load(self, manifest: dict[str, str]) -> Any:
        """Return the model, on the handler's device."""
        if not manifest.get("serializedFile"):
            raise RuntimeError("the archive's manifest names no serializedFile")
        file = str(self.directory / manifest["serializedFile"])
        return torch.jit.load(file, map_location=self.device).eval()  # type: ignore[no-untyped-call]

    def prepare(self) -> None:
        """Read what the model takes; the number of its inputs is held to its ``forward``."""
        takes = [argument.name for argument in self.model.forward.schema.arguments[1:]]
        self.wanted = wanted_of(self.directory) or [Wanted(name) for name in takes[:1]]
        if len(self.wanted) > len(takes) or not takes:
            raise RuntimeError(f"signature.json names {len(self.wanted)} inputs, forward takes {len(takes)}")
        if any(each.datatype == "BYTES" for each in self.wanted):
            raise RuntimeError("signature.json: a TorchScript model takes no texts")

    def parse(self, value: Any) -> Any:
        """Return a row's tensors; a ValueError says what is wrong with one."""
        return parsed(value, self.wanted)

    def accepted(self) -> str:
        """Return what a row may hold."""
        return f"the model takes {', '.join(each.shown() for each in self.wanted)}"

    @torch.inference_mode()
    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        """Return the answer to each row."""
        found: list[Any] = [None] * len(inputs)
        for places in groups(inputs, single=False):
            given = [
                torch.from_numpy(np.stack([inputs[place][number] for place in places])).to(self.device)
                for number in range(len(self.wanted))
            ]
            output = self.model(*given)
            for number, place in enumerate(places):
                found[place] = _row(output, number, len(places))
        return iter(found)


def _row(output: Any, number: int, rows: int) -> Any:
    """Return row ``number`` of the model's output."""
    if isinstance(output, dict):
        named = {str(name): _row(each, number, rows) for name, each in output.items()}
        return next((each for each in named.values() if isinstance(each, Failure)), named)
    if isinstance(output, tuple | list):
        several = [_row(each, number, rows) for each in output]
        return next((each for each in several if isinstance(each, Failure)), several)
    if not isinstance(output, torch.Tensor) or output.dim() < 1 or output.shape[0] != rows:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise RuntimeError(f"for {rows} rows the model gives {got}, not one answer a row")
    output = output[number]
    return plain((output.float() if output.dtype == torch.bfloat16 else output).cpu().numpy())
