"""`marway observations`."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from marway.records import utc_now
from marway.registry import Registry
from support.in_process import Marway
from support.observations import feedback, observation, write_feedback, write_observations


def listed(marway: Marway, *arguments: str) -> list[dict[str, Any]]:
    said = marway("observations", *arguments, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_newest_first(marway: Marway, served: Registry) -> None:
    """The newest are shown, each with its answer and what feedback says of it."""
    rows = listed(marway, "INTENT", "--version", "1.0", "--limit", "3")
    assert [row["request_id"] for row in rows] == [f"request-1.0-{place}" for place in (9, 8, 7)]
    assert (rows[0]["truth"], rows[1]["truth"], rows[1]["correct"]) == (None, '"b"', False)
    assert (rows[0]["model"], json.loads(rows[0]["output"])) == ("intent", {"label": "a"})
    said = marway("observations", "--limit", "2")
    assert said.out.splitlines()[0].split()[2:5] == ["prediction", "model", "version"]
    assert '{"label": "a"}' in said.out
    assert "--limit shows more than 2" in said.err


def test_filters(marway: Marway, served: Registry) -> None:
    """Each filter leaves what it names."""
    (one,) = listed(marway, "intent", "--id", "request-1.1-4")
    assert listed(marway, "--id", one["prediction_id"]) == [one]
    failed = observation(outcome="timeout", error="deadline_exceeded", group_id="g", label="STG", at=utc_now())
    write_observations(served.store, "other", [failed])
    wanted = [failed["prediction_id"]]
    for filters in (["--outcome", "timeout"], ["--group", "g"], ["--label", "STG"], ["--since", "5m"], ["other"]):
        assert [row["prediction_id"] for row in listed(marway, *filters)] == wanted, filters
    assert len(listed(marway, "--until", f"{utc_now() - timedelta(minutes=5):%Y-%m-%dT%H:%M}", "--limit", "99")) == 20
    assert "nothing was kept between" in marway("observations", "intent", "--since", "1s").out


def test_feedback_of_requests(marway: Marway, served: Registry) -> None:
    """Feedback that names a request counts too."""
    told = feedback("late", request_id="request-1.0-9", at=utc_now())
    write_feedback(served.store, [told])
    assert [row["truth"] for row in listed(marway, "--id", "request-1.0-9")] == ['"late"']


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("limit", [[], ["--limit", "5"]])
def test_export(marway: Marway, served: Registry, suffix: str, limit: list[str]) -> None:
    """What is asked for is written, whole, with truths; in files of text, bodies that are no text are in base64."""
    picture = b"\xff\xd8\x00"
    write_observations(
        served.store,
        "intent",
        [observation(output=picture, output_type="image/jpeg", bodies="kept", request_id="picture", at=utc_now())],
    )
    file = Path(f"it's.{suffix}")
    said = marway("observations", "intent", "--export", str(file), *limit)
    assert said.out.startswith(f"it's.{suffix}: {5 if limit else 21} predictions between")
    if suffix == "parquet":
        rows = pq.read_table(file).to_pylist()
    elif suffix == "csv":
        rows = list(csv.DictReader(file.read_text().splitlines()))
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    by_request = {row["request_id"]: row for row in rows}
    assert len(by_request) == len(rows) == (5 if limit else 21)
    shown = by_request["picture"]["output"]
    assert shown == (picture if suffix == "parquet" else "base64:/9gA")
    assert json.loads(by_request["request-1.1-8"]["truth"]) == "b"
    assert json.loads(by_request["request-1.1-8"]["input"]) == {"text": "number 8"}
    assert [path.name for path in Path().iterdir()] == [file.name]
    assert "is there already" in marway("observations", "--export", str(file)).err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nothing"], "no model 'nothing'"),
        (["--outcome", "good"], "'good' is no outcome: use one of ok"),
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--export", "file.xlsx"], "End its name with .csv, .jsonl, .parquet"),
        (["--export", "nowhere/file.csv"], "there is no directory"),
    ],
)
def test_refused(marway: Marway, served: Registry, arguments: list[str], why: str) -> None:
    """What cannot be is refused in one line."""
    said = marway("observations", *arguments)
    assert said.code == 1
    assert why in said.err
    assert len(said.err.splitlines()) == 1
