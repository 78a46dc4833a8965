"""What is read and sent of each format, how it is written, and which attempt at a part counts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from marway.errors import InvalidInput, NotFound
from marway.objects import open_store
from marway_ops.batch.job import Job, Part
from marway_ops.batch.output import Output
from marway_ops.batch.requests import Answer, Failure
from marway_ops.batch.rows import Question, question_of, read_rows
from marway_ops.batch.sources import find_sources, format_of, output_format_of
from marway_ops.batch.writing import written_answers


def questions(path: Path, **fields: Any) -> list[Question]:
    sources = find_sources([str(path)])
    job = job_of(inputs=tuple(each.input for each in sources), input_format=format_of(sources), **fields)
    return [question_of(raw, sources[place], job) for place, raw in read_rows(job, sources)]


def job_of(**fields: Any) -> Job:
    usual = {
        "reference": "intent",
        "model": "intent",
        "version": "1.0",
        "model_id": "mv_1",
        "inputs": (),
        "input_format": "jsonl",
        "output_format": "jsonl",
        "part_rows": 10,
        "part_bytes": 1000,
    }
    return Job(**{**usual, **fields})


def sent(found: list[Question]) -> list[tuple[int, bytes, str]]:
    return [(each.row, each.body, each.content_type) for each in found]


def test_json_lines(tmp_path: Path) -> None:
    """Lines go as they are; one that is no JSON, or lacks the column, fails alone; empty ones count, unsent."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "wake me", "id": 7}\n\n{"text": \n{"no": 1}\n')
    whole = questions(path)
    assert sent(whole)[0] == (1, b'{"text": "wake me", "id": 7}', "application/json")
    assert (whole[1].row, whole[1].fault) == (3, "the line is no JSON: Expecting value: line 1 column 9 (char 8)")
    named = questions(path, column="text", keep=("id",), limit=3)
    assert sent(named)[0] == (1, b"wake me", "text/plain")
    assert named[0].kept == (("id", 7),)
    assert named[2].fault == "the row has no text, id: it has no"


def test_rows_that_cannot_be_written_as_they_are(tmp_path: Path) -> None:
    """Half a character and endless nesting fail alone or stay escapes; none of it stops the job for ever."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "\\ud800", "id": "\\udfff"}\n' + "[" * 100_000 + "\n")
    named = questions(path, column="text", keep=("id",))
    assert named[0].fault == "its text has half a character (a surrogate)"
    assert named[1].fault is not None
    question = questions(path, column=None, keep=("id",))[0]
    for body in (b'"\\ud83d"', b'["\\ud83d"]', b"[" * 100_000):
        found = Answer(question, body, "application/json", "P1")
        (line,) = written_answers([found], "jsonl").splitlines()
        assert json.loads(line)["id"] == "\udfff"
        for kind in ("csv", "parquet"):
            assert written_answers([found], kind)


def test_a_large_cell(tmp_path: Path) -> None:
    """A cell may be as large as a line of JSON."""
    path = tmp_path / "in.csv"
    path.write_text("text\n" + "x" * 200_000 + "\n")
    assert len(questions(path, column="text")[0].body) == 200_000


def test_csv(tmp_path: Path) -> None:
    """A row of CSV goes as an object; what is written as a number is one; a row too short is refused by its line."""
    path = tmp_path / "in.csv"
    path.write_text('zip,age,say\n01067,41,"a\nb"\n,-1.5e3,true\n')
    assert sent(questions(path)) == [
        (1, b'{"zip": "01067", "age": 41, "say": "a\\nb"}', "application/json"),
        (2, b'{"zip": null, "age": -1500.0, "say": "true"}', "application/json"),
    ]
    path.write_text("a,b\n1\n")
    with pytest.raises(InvalidInput, match="line 2: it has not as many cells"):
        questions(path)


def test_parquet_in_and_out(tmp_path: Path) -> None:
    """Rows of Parquet go as objects with their types, and answers are written with the same types in every part."""
    path = tmp_path / "in.parquet"
    pa.parquet.write_table(pa.table({"text": ["a", "b"], "x": [[1.5], []], "raw": [b"\0", b"1"]}), path)
    assert sent(questions(path))[0][1] == b'{"text": "a", "x": [1.5], "raw": {"b64": "AA=="}}'
    found = questions(path, column="raw", keep=("text", "x"))
    assert sent(found) == [(1, b"\0", "application/octet-stream"), (2, b"1", "application/octet-stream")]
    answers = [
        Answer(found[0], b'{"label": "up"}', "application/json", "01A"),
        Answer(found[1], b"\xff", "application/octet-stream", None),
    ]
    rows = pa.parquet.read_table(io.BytesIO(written_answers(answers, "parquet"))).to_pylist()
    assert [(row["row"], row["prediction"], row["text"], row["x"]) for row in rows] == [
        (1, '{"label": "up"}', "a", "[1.5]"),
        (2, '{"b64": "/w=="}', "b", "[]"),
    ]
    (first, _) = csv.DictReader(io.StringIO(written_answers(answers, "csv").decode()))
    assert (first["row"], first["prediction_id"], first["prediction"]) == ("1", "01A", '{"label": "up"}')
    (line, _) = map(json.loads, written_answers(answers, "jsonl").splitlines())
    assert line["prediction"] == {"label": "up"}


def test_files(tmp_path: Path) -> None:
    """In a directory of other files each is a row, sent as its suffix says; hidden ones are passed by."""
    for name, data in {"b/two.txt": b"hi", "a.png": b"png", "c.bin": b"", ".d": b"x"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = questions(tmp_path)
    assert [(Path(each.file).name, each.body, each.content_type) for each in found] == [
        ("a.png", b"png", "image/png"),
        ("two.txt", b"hi", "text/plain"),
        ("c.bin", b"", "application/octet-stream"),
    ]
    assert found[2].fault == "the file is empty"
    assert [each.row for each in questions(tmp_path / "[ab]*")] == [1]
    with pytest.raises(NotFound, match="no input is named"):
        find_sources([str(tmp_path / "*.csv")])
    (tmp_path / "x.csv").write_text("a\n1\n")
    with pytest.raises(InvalidInput, match="of several formats"):
        format_of(find_sources([str(tmp_path)]))
    assert output_format_of("s3://bucket/out.parquet/", "files") == "parquet"
    assert output_format_of("out", "files") == "jsonl"


def test_one_attempt_counts(tmp_path: Path) -> None:
    """Of two attempts at a part the first to commit counts; what a killed one left is removed at the end."""
    output, job = Output(open_store(str(tmp_path / "out"))), job_of()
    part = Part(index=0, input=0, first_row=1, last_row=2)
    answered = [Answer(Question("f", 1), b"1", "application/json", None)]
    failed = [Failure(Question("f", 2), "no", "model_error")]
    assert output.begin(job) == job
    assert output.begin(job.model_copy(update={"version": "1.1", "model_id": "mv_2"})) == job
    assert output.commit(job, part, answered, failed)
    assert not output.commit(job, part, answered, failed)
    open_store(str(tmp_path / "out")).create(f"{part.name}.killed.jsonl", b"left")
    assert output.committed() == {0}
    manifest = output.finish(job)
    assert (manifest["rows"], manifest["failed"]) == (1, 1)
    kept = [path.name for path in (tmp_path / "out").rglob("part-*")]
    assert sorted(kept) == sorted(
        [manifest["parts"][0]["answers"], manifest["parts"][0]["failures"].removeprefix("_failed/")]
    )
