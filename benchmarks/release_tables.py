"""The page of a hundred releases, from the figures of `bench_releases.py`."""

from collections.abc import Iterator, Sequence
from typing import Any

from documents import Table


def _kinds(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for what in dict.fromkeys(row["what"] for row in rows):
        yield what, [row for row in rows if row["what"] == what]


def markdown(result: dict[str, Any]) -> str:
    rows = result["rows"]
    goals = Table("what", "goal", "reached")
    goals.add(
        "bad releases stopped within 60 s of traffic", "≥ 48 of 50", f"{result['stopped_in_time']} of {result['bad']}"
    )
    part = 1000 * result["touched"] / result["calls"] if result["calls"] else 0.0
    goals.add("wrong answers, of all answers meanwhile", "≤ 10 ‰", f"{part:.2f} ‰ of {result['calls']:,}")
    goals.add("good releases rolled back", "0 of 50", f"{result['rolled_back_good']} of {result['good']}")
    goals.add("good releases promoted", "", f"{result['promoted_good']} of {result['good']}")
    bad = Table("bad release", "of", "ends", "after", "by", "wrong answers")
    for what, each in _kinds([row for row in rows if not row["good"]]):
        bad.add(
            what,
            ", ".join(row["model"] for row in each),
            ", ".join(dict.fromkeys(row["end"] for row in each)),
            ", ".join(f"{row['seconds']:.0f} s" for row in each),
            ", ".join(dict.fromkeys(row["guard"] or ("proof" if row["end"] == "refused" else "none") for row in each)),
            ", ".join(f"{row['touched']} of {row['calls']}" for row in each),
        )
    fine = Table("good release", "of", "ends", "after")
    for what, each in _kinds([row for row in rows if row["good"]]):
        models = dict.fromkeys(row["model"] for row in each)
        seconds = [row["seconds"] for row in each]
        ends = (f"{sum(row['end'] == end for row in each)} {end}" for end in dict.fromkeys(row["end"] for row in each))
        fine.add(what, ", ".join(models), ", ".join(ends), f"{min(seconds):.0f} to {max(seconds):.0f} s")
    late = result["step_time_s"] + 2
    missed = [
        "- {model} {version}, {what}: {end} after {seconds:.0f} s. {reason}".format(**row)
        for row in rows
        if (row["end"] == "promoted") is not row["good"] or (not row["good"] and row["seconds"] > late)
    ]
    parts = (
        f"`marway rollout start MODEL VERSION --steps {result['steps']} --step-time {result['step_time_s']}s` for",
        "versions of an intent classifier, a digit classifier and EfficientNet-Lite0 at 32 pixels, each asked",
        f"{result['rate']} times a second. One `marway up` with the native engine, two models at a time; callers",
        "share its processors.\n",
        *goals.lines(),
        "",
        *bad.lines(),
        "",
        *fine.lines(),
        "",
        "*Wrong answers*: callers of the candidate who got an error, an answer of another shape, or another decision",
        "than the base's, of all callers from the start of the rollout to its end. *proof*: refused before anyone was",
        "touched.",
        *(["", "Not as they should:", "", *missed] if missed else []),
    )
    return "\n".join(parts) + "\n"
