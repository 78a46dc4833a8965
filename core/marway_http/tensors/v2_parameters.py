"""Parameters of the Open Inference Protocol, in JSON and in messages, and what they say of a request's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from marway.errors import InvalidRequest, clip
from marway_http.proto import open_inference_pb2 as pb

__all__ = ["ALL_BINARY", "BINARY", "SIZE", "OutputForms", "add_parameters", "plain_parameters"]

SIZE: Final = "binary_data_size"
"""Of a tensor over REST: how many bytes of binary data are its own."""
BINARY: Final = "binary_data"
"""Of an output that is wanted: whether as binary."""
ALL_BINARY: Final = "binary_data_output"
"""Of a request: whether all outputs are wanted as binary that do not say so themselves."""

_UNSIGNED: Final = frozenset({"priority"})
"""Parameters that Triton takes as `uint64_param` alone."""
_INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class OutputForms:
    """Which outputs a REST request wants as binary.

    Attributes:
        binary: Those that are not named.
        named: Whether, by name.
    """

    binary: bool = False
    named: Mapping[str, bool] = field(default_factory=dict)

    def wants_binary(self, output: str) -> bool:
        """Return whether an output goes back as binary."""
        return self.named.get(output, self.binary)


def plain_parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """Return parameters by name; None for one that has no value."""
    choices = {name: (each, each.WhichOneof("parameter_choice")) for name, each in parameters.items()}
    return {name: None if choice is None else getattr(each, choice) for name, (each, choice) in choices.items()}


def add_parameters(target: Any, parameters: Mapping[str, Any], *, lenient: bool = False) -> None:
    """Write parameters, as JSON has them, to a message's map; null says nothing, and stays out.

    Args:
        target: The map.
        parameters: By name.
        lenient: Whether a list or an object, which messages cannot carry, goes as the text of its JSON.

    Raises:
        InvalidRequest: One is a list or an object, or a number beyond 64 bits.
    """
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int) and -_INT64_MAX - 1 <= value <= 2 * _INT64_MAX + 1:
            unsigned = value > _INT64_MAX or (name in _UNSIGNED and value >= 0)
            setattr(target[name], "uint64_param" if unsigned else "int64_param", value)
        elif isinstance(value, float):
            target[name].double_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        elif lenient:
            target[name].string_param = json.dumps(value)
        else:
            raise InvalidRequest(
                f"the parameter {clip(name, 100)!r} is {clip(json.dumps(value), 60)}: over gRPC a parameter is a "
                "text, a number of 64 bits, true or false"
            )
