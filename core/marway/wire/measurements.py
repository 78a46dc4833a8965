"""What handlers measure (`context.metrics` of TorchServe), on its way from a worker to the sidecar's metrics.

Standard library only: workers of TorchServe run this too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

__all__ = ["KINDS", "MEASUREMENTS_MAX", "SPAN", "Kind", "Measurement", "measurements_of"]

Kind = Literal["counter", "gauge", "histogram", "span"]
KINDS: Final = frozenset({"counter", "gauge", "histogram", "span"})
SPAN: Final = "span"
"""No metric: how long a step of a traced call took (`marway.worker.steps`); only a sidecar that asks gets it."""
MEASUREMENTS_MAX: Final = 256
"""Most of them that one call of a handler brings along."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value.

    Attributes:
        kind: How values of this name come together: they are added, the last one counts, or they are observed.
            A `span` is one of its own.
        name, unit: As the handler says them.
        dimensions: Names and values.
        value: Any finite number.
    """

    kind: Kind
    name: str
    unit: str
    dimensions: tuple[tuple[str, str], ...]
    value: float

    def fields(self) -> list[Any]:
        """Return it as JSON has it."""
        return [self.kind, self.name, self.unit, self.dimensions, self.value]


def measurements_of(document: object) -> list[Measurement]:
    """Return the measurements that `Measurement.fields` made a list of.

    Raises:
        ValueError: It is no such list, or too long.
    """
    if not isinstance(document, list) or len(document) > MEASUREMENTS_MAX:
        raise ValueError("measurements are no list, or too many")
    return [_measurement(fields) for fields in document]


def _measurement(fields: object) -> Measurement:
    if not isinstance(fields, list) or len(fields) != 5:
        raise ValueError("a measurement is not kind, name, unit, dimensions and value")
    kind, name, unit, dimensions, value = fields
    if kind not in KINDS or not isinstance(name, str) or not isinstance(unit, str):
        raise ValueError("a measurement's kind is unknown, or its name or unit no text")
    if type(value) not in (int, float) or not isinstance(dimensions, list):
        raise ValueError("a measurement's value is no number, or its dimensions no list")
    if not all(isinstance(pair, list) and [type(each) for each in pair] == [str, str] for pair in dimensions):
        raise ValueError("a measurement's dimensions are not pairs of texts")
    pairs = tuple((pair[0], pair[1]) for pair in dimensions)
    return Measurement(cast("Kind", kind), name, unit, pairs, float(value))
