"""How often drift is told where there is none, and where there is: by simulation, with the figures of docs/drift.md.

`python tests/observations/drift/test_false_alarms.py` prints its table.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from marway.features.collecting import Rows
from marway_observations.drift.comparing import compared

WORDS = [f"{chr(97 + place % 26)}{chr(97 + place // 26)}" for place in range(400)]
ZIPF = [1 / (place + 1) for place in range(400)]
COUNTRIES = [f"C{place}" for place in range(60)]
FIELDS = 6


@dataclass(frozen=True)
class Looks:
    """What many looks found: the part in which some field's PSI was 0.2 or more, and that in which it had drifted."""

    by_psi: float
    drifted: float


def rows_of(count: int, draw: random.Random, *, shift: float = 0.0) -> Rows:
    """Return rows of six fields: numbers of three shapes, few and many categories, texts."""
    rows = Rows()
    for _ in range(count):
        rows.add(
            {
                "input": [
                    {
                        "normal": draw.gauss(shift, 1),
                        "skewed": draw.lognormvariate(0, 1.5),
                        "few": draw.randrange(5),
                        "country": draw.choices(COUNTRIES, ZIPF[:60])[0],
                        "text": " ".join(draw.choices(WORDS, ZIPF, k=draw.randint(3, 10))),
                    }
                ]
            }
        )
    return rows


def looks(reference: int, count: int, *, times: int, shift: float = 0.0, seed: int = 0) -> Looks:
    """Return what so many looks found at rows with this shift of one field, in standard deviations."""
    draw = random.Random(seed)
    summary = rows_of(reference, draw).summarize()
    by_psi = drifted = 0
    for _ in range(times):
        found = compared(summary, rows_of(count, draw, shift=shift), psi_maximum=0.2)
        by_psi += any(field.psi >= 0.2 for field in found)
        drifted += any(field.drifted for field in found)
    return Looks(by_psi / times, drifted / times)


@pytest.mark.parametrize("reference", [200, 5000])
def test_there_are_no_false_alarms(reference: int) -> None:
    """Rows from where the reference came from do not drift, also where the index alone would say so."""
    assert looks(reference, 200, times=20).drifted == 0


@pytest.mark.extended  # test_there_are_no_false_alarms and tests of a drift in test_evaluating.py are the fast ones
def test_alarms_are_as_documented() -> None:
    """At most one look in 100 is a false alarm, with few rows too; a shift of one standard deviation is always seen."""
    for reference, count in ((60, 100), (200, 200), (5000, 1000)):
        assert looks(reference, count, times=150).drifted <= 0.01
    assert looks(5000, 200, times=60, shift=1.0).drifted == 1
    assert looks(200, 200, times=60, shift=1.0).drifted >= 0.95


if __name__ == "__main__":
    print("reference rows | rows | shift (sd) | PSI >= 0.2 | drifted")
    for reference, count in ((60, 100), (200, 200), (1000, 200), (20_000, 200), (20_000, 1000)):
        for shift in (0.0, 0.3, 0.5, 1.0):
            found = looks(reference, count, times=200, shift=shift)
            print(
                f"{reference} | {count} | {shift} | {found.by_psi * 100:.1f} % | {found.drifted * 100:.1f} %",
                flush=True,
            )
