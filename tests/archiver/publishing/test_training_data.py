"""Training data summed up in a version's record."""

from __future__ import annotations

import io
import json
import logging
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from marway.answers.golden import encode_examples
from marway.errors import InvalidInput
from marway.features.summaries import FeatureSummary
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver import Example, publish, publish_archive
from marway_archiver.publishing.facts import RecordFacts
from marway_archiver.publishing.training_check import unsent
from marway_archiver.publishing.training_data import with_training_data

LOANS = [{"age": 20 + place % 40, "country": "DE" if place % 4 else "US"} for place in range(200)]


def summed(path: Path, **record: Any) -> dict[str, FeatureSummary]:
    return dict(with_training_data(RecordFacts.model_validate(record), path).training.features)


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def picture(light: int) -> bytes:
    written = io.BytesIO()
    Image.new("L", (8, 8), light).save(written, "PNG")
    return written.getvalue()


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    """The same rows as JSONL, CSV, TSV and Parquet have the same summary."""
    files = [jsonl(tmp_path / "a.jsonl", LOANS)]
    for ending, mark in ((".csv", ","), (".csv", ";"), (".tsv", "\t")):
        files.append(tmp_path / f"a{ord(mark)}{ending}")
        files[-1].write_text(
            f"age{mark}country\n" + "".join(f"{row['age']}{mark}{row['country']}\n" for row in LOANS), "utf-8-sig"
        )
    files.append(tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(LOANS), files[-1], row_group_size=64)
    found = [summed(file) for file in files]
    assert set(found[0]) == {"input.age", "input.country"}
    assert found[0]["input.country"].names == ("DE", "US")
    assert found[0]["input.country"].shares == (0.75, 0.25)
    assert all(each == found[0] for each in found)


def test_rows_may_have_inputs_and_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lines as those of golden examples, and columns by the names of fields; other columns are left out and named."""
    (tmp_path / "a.txt").write_text("wake me")
    lines = [
        {"input": "wake me", "output": {"label": "alarm"}, "status": 200},
        {"file": "a.txt", "output": {"label": "alarm"}},
    ]
    found = summed(jsonl(tmp_path / "a.jsonl", lines * 20))
    assert set(found) == {"input", "output.label"}
    assert found["input"].names == ("wake me",)
    table = tmp_path / "a.csv"
    table.write_text("id,input.age,output\n" + "1,41,yes\n2,,no\n" * 20)
    found = summed(table)
    assert set(found) == {"input.age", "output"}
    assert found["input.age"].missing == 0
    assert "left out: id" in caplog.text


def test_a_text_model_has_texts_as_rows(tmp_path: Path) -> None:
    """A line may be any JSON value that is the whole input."""
    draw = random.Random(0)
    lines = [f"{' '.join(draw.choices(['wake', 'play', 'stop'], k=3))} {draw.random()}" for _ in range(100)]
    assert set(summed(jsonl(tmp_path / "a.jsonl", lines))) == {"length(input)", "words(input)"}


def test_pictures_in_parquet_have_a_brightness(tmp_path: Path) -> None:
    """Columns of bytes, and those of Hugging Face's data sets, are pictures."""
    file = tmp_path / "a.parquet"
    pictures = [{"input": {"bytes": picture(place % 200), "path": None}} for place in range(100)]
    pq.write_table(pa.Table.from_pylist(pictures), file)
    assert set(summed(file)) == {"brightness(input)"}
    plain = [{"input.photo": picture(place % 200)} for place in range(100)]
    pq.write_table(pa.Table.from_pylist(plain), file)
    assert set(summed(file)) == {"brightness(input.photo)"}


def test_rows_may_be_pythons_own() -> None:
    """A training script gives what it has: values of numpy, and bytes; a row that is none of JSON's types is named."""
    rows = [{"input": {"age": numpy.int64(40 + place % 2), "xs": numpy.zeros(2)}, "output": "a"} for place in range(20)]
    features = with_training_data(RecordFacts(), iter(rows)).training.features
    assert set(features) == {"input.age", "input.xs[0]", "input.xs[1]", "output"}
    assert features["input.age"].edges == (40, 41)
    assert set(with_training_data(RecordFacts(), [picture(9)]).training.features) == {"brightness(input)"}
    assert set(with_training_data(RecordFacts(), [[1.5, 2]] * 3).training.features) == {"input[0]", "input[1]"}
    with pytest.raises(InvalidInput, match="row 2 of the training data: object is none of"):
        with_training_data(RecordFacts(), [1, object()])
    with pytest.raises(InvalidInput, match="put a single row into a list"):
        with_training_data(RecordFacts(), {"age": 1})


def test_what_is_redacted_is_not_in_the_record(tmp_path: Path) -> None:
    """What may not be kept of predictions is not kept of training data: fields, and texts that cannot be read."""
    rows = [{"input": {"email": "canary", "age": 1}, "output": "canary"}] * 20
    file = jsonl(tmp_path / "a.jsonl", rows)
    assert set(summed(file)) == {"input.email", "input.age", "output"}
    found = summed(file, serving={"observe_redact": ["email"]})
    assert set(found) == {"input.age"}
    with pytest.raises(InvalidInput, match="nothing in its rows can be summed up"):
        summed(file, serving={"observe_redact": ["input", "output"]})


def test_fields_of_the_drift_rule_are_summed_up(tmp_path: Path) -> None:
    """Where a rule names fields they have a summary, also those that are computed."""
    rows = [{"items": [{"price": place}, {"price": 5}]} for place in range(30)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    found = summed(file, serving={"drift": {"fields": ["length(input.items)", "input.items[].price | max(@)"]}})
    assert set(found) == {"length(input.items)", "input.items[].price | max(@)"}
    with pytest.raises(InvalidInput, match=r"the drift rule names input\.x"):
        summed(file, serving={"drift": {"fields": ["input.x"]}})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.xlsx", "", r"ends in .jsonl, .ndjson, .csv, .tsv, .parquet"),
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", "{}\n{", r"a.jsonl:2: is not JSON"),
        ("a.jsonl", '{"file": 3}', r"a.jsonl:1: an object with either"),
        ("a.jsonl", '{"file": "gone.png"}', "cannot be read: no such file"),
        ("a.csv", "", "has no head"),
        ("a.csv", "a,b\n1\n", r"a.csv:2: has 1 cells, and the head has 2 names"),
        ("a.csv", "a,a\n1,2\n", "two columns called 'a'"),
        ("a.csv", "input,input.a\n1,2\n", "a column 'input' and others below it"),
        ("a.parquet", "no parquet", "is no Parquet that can be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str, says: str) -> None:
    """A mistake is named with its place, before anything is packed or stored."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=says):
        summed(tmp_path / name)


def test_more_fields_than_there_is_room_for_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record holds so many bytes: the fullest fields are kept, and a warning says that others are not."""
    draw = random.Random(0)
    file = jsonl(tmp_path / "a.jsonl", [{f"f{name}": draw.random() for name in range(120)} for _ in range(60)])
    assert 20 < len(summed(file)) < 100
    assert "more fields than a record has room for" in caplog.text


def test_it_is_published_with_the_version(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`publish` and `publish_archive` put it into the record; one that is there stays, and says so."""
    caplog.set_level(logging.WARNING)
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    handler = tmp_path / "handler.py"
    handler.write_text("def handle(data, context):\n    return [1 for _ in data or ()]\n")
    file = jsonl(tmp_path / "a.jsonl", LOANS)

    def published(data: Path | None, version: str = "1.0", **more: Any) -> VersionRecord:
        return publish(
            model_name="loans", version=version, handler=str(handler), registry=registry, create_registry=True,
            training_data=data, **more,
        )  # fmt: skip

    record = published(file, record={"training": {"run_id": "run-7"}})
    assert record.training.run_id == "run-7"
    assert set(registry.record("loans", "1.0").training.features) == {"input.age", "input.country"}
    assert "published before" not in caplog.text
    assert published(None).training == record.training
    assert "published before, with another summary of its training data: it stays so" in caplog.text
    with pytest.raises(InvalidInput, match="say it once"):
        published(file, "2.0", record={"training": record.training.model_dump()})
    archive = tmp_path / "loans.mar"
    with registry.open_archive(record.archive) as stored:
        archive.write_bytes(stored.read())
    other = Registry(DirectoryStore(tmp_path / "other"))
    again, _ = publish_archive(archive, registry=other, create_registry=True, training_data=file)
    assert again.training.features == record.training.features


@pytest.mark.parametrize(
    ("examples", "rows", "says"),
    [
        ([{"age": 1}], [{"age": 1, "target": 0}], "all training data have input.target, and no golden example does"),
        ([{"age": 1}], ["a text"], "all training data have input, and"),
        ([{"age": 1}, {"age": 2, "target": 1}], [{"age": 1, "target": 0}], None),
        ([{"instances": [{"age": 1}]}], [{"age": 1}], None),
        ([{"age": 1}], [{"age": 1, "rare": 0}, {"age": 1}], None),
        (["a text"], [{"input": "a text", "output": 1}], None),
        ([], [{"age": 1, "target": 0}], None),
    ],
)
def test_fields_that_callers_do_not_send_are_warned_of(
    tmp_path: Path, examples: list[Any], rows: list[Any], says: str | None
) -> None:
    """What all training data have and no golden input does would be missing in predictions for ever."""
    archive = tmp_path / "a.mar"
    with zipfile.ZipFile(archive, "w") as written:
        for name, data in encode_examples([Example(each).encoded() for each in examples]).items():
            written.writestr(name, data)
    features = with_training_data(RecordFacts(), rows * 20).training.features
    warnings = unsent(archive, "mar", features)
    assert bool(warnings) == (says is not None)
    assert says is None or says in warnings[0]
