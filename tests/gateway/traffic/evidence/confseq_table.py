"""Writes confseq.json: what the authors' own program says of the same bets: `python confseq_table.py > confseq.json`.

`confseq` 0.0.11 is built from C++ with Boost and wants NumPy 1, so it is no requirement of the tests. The table is
made with its Python source alone: `betting.py` needs none of its C++ parts, which were left out, as were its plots, and
`np.float_` was read as `np.float64`.
"""

import json
from math import log

import numpy as np
from confseq.betting import betting_mart  # type: ignore[import-not-found]  # see above

FRACTIONS = [2.0 ** (-k / 2) for k in range(16)]
WEIGHTS = [0.2, *[0.8 / 15] * 15]
COUNTS = [(0, 0, 300), (12, 5, 400), (3, 0, 1000), (40, 0, 500), (0, 25, 200), (20, 5, 10), (1, 1, 30)]
LIMITS = [0.005, 0.02, 0.1, 0.4]


def log_capital(ones: int, halves: int, zeros: int, limit: float, *, above: bool) -> float | None:
    """Return the logarithm of the capital of all bets together; None where nothing is left."""
    rng = np.random.default_rng(1)
    stream = rng.permutation(np.array([1.0] * ones + [0.5] * halves + [0.0] * zeros))
    total = 0.0
    for fraction, weight in zip(FRACTIONS, WEIGHTS, strict=True):
        bet = fraction / (limit if above else 1 - limit)
        bets = np.full(len(stream), bet)

        def constant(x, m, bets=bets):  # type: ignore[no-untyped-def]  # confseq has no types
            return bets

        capital = betting_mart(
            stream,
            limit,
            lambdas_fn_positive=constant,
            lambdas_fn_negative=constant,
            theta=1 if above else 0,
            trunc_scale=1,
        )
        total += weight * float(capital[-1])
    return log(total) if total > 0 else None


rows = [
    {"counts": counts, "limit": limit, "above": above, "log_capital": log_capital(*counts, limit, above=above)}
    for counts in COUNTS
    for limit in LIMITS
    for above in (True, False)
]
lines = ",\n  ".join(json.dumps(row) for row in rows)
print(f'{{"made_by": "confseq 0.0.11, confseq_table.py",\n "rows": [\n  {lines}\n ]}}')
