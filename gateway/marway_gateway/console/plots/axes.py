"""What the axes of plots are of, how their values are written, and where their ticks are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

__all__ = ["BYTES", "COUNT", "DURATION", "MILLISECONDS", "PERCENT", "TIME", "Axis", "ticks", "unit_bytes"]

_SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis is of.

    Attributes:
        label: In words, with the unit.
        text: Writes a value.
        steps: Distances that ticks may have; none stands for 1, 2 and 5 times powers of ten.
    """

    label: str
    text: Callable[[float], str]
    steps: tuple[float, ...] = ()

    def named(self, label: str) -> Axis:
        """Return the axis under another name."""
        return Axis(label, self.text, self.steps)


def _number(value: float) -> str:
    return f"{value:,.6g}"


def _time(value: float) -> str:
    return datetime.fromtimestamp(value, UTC).strftime("%H:%M:%S")


def _duration(value: float) -> str:
    if value < 120:
        return f"{value:.6g} s"
    return f"{value / 60:.4g} min" if value < 7200 else f"{value / 3600:.4g} h"


def unit_bytes(value: float) -> str:
    """Return so many bytes in words, such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


COUNT: Final = Axis("count", _number)
PERCENT: Final = Axis("percent", lambda value: f"{100 * value:.4g} %")
"""Of fractions."""
MILLISECONDS: Final = Axis("milliseconds", lambda value: f"{value:.4g} ms")
BYTES: Final = Axis("bytes", unit_bytes, tuple(2.0**power for power in range(60)))
DURATION: Final = Axis("time since it began", _duration, _SECONDS)
"""Of seconds."""
TIME: Final = Axis("time (UTC)", _time, _SECONDS)
"""Of seconds since the epoch."""


def ticks(low: float, high: float, wanted: int, steps: Sequence[float]) -> list[float]:
    """Return places for ticks: multiples of one distance, about as many as wanted and never none."""
    least = (high - low) / wanted
    step = next((each for each in steps if each >= least), None)
    if step is None:
        power = 10.0 ** math.floor(math.log10(least))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= least * 0.999)
    first = math.ceil(low / step)
    count = max(0, math.floor(high / step) - first) + 1
    return [round((first + number) * step, 12) for number in range(count) if (first + number) * step <= high]
