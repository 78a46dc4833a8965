"""Versions whose inputs and outputs have moved, or not, by what gateways kept of their predictions."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, encode_examples
from marway.features.collecting import Rows
from marway.objects import DirectoryStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import DriftRule
from marway_observations.drift.evaluating import evaluate_drift, evaluate_version
from marway_observations.drift.results import DriftResult
from marway_observations.layout import observations_prefix, partition
from support.observations import NOON, observation, write_observations
from support.registry import Publish, publisher

DAY = timedelta(days=1)
Maker = Callable[[random.Random], dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "registry")


@pytest.fixture
def registry(store: DirectoryStore) -> Registry:
    return Registry(store)


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> Publish:
    return publisher(registry, tmp_path)


def loan(draw: random.Random, *, years: float = 0.0, country: str = "DE") -> dict[str, Any]:
    """An input of a model of loans."""
    return {
        "age": round(draw.gauss(40 + years, 10), 1),
        "country": draw.choice(["US", "FR", country]),
        "purpose": " ".join(draw.choices(["car", "house", "school", "other", "things"], k=4)) + f" {draw.random()}",
    }


def keep(
    store: DirectoryStore,
    make: Maker,
    count: int,
    *,
    at: datetime = NOON - timedelta(hours=1),
    version: str = "1.0",
    seed: int = 1,
    **fields: Any,
) -> None:
    """Write predictions as gateways do, each with an input and the answer to it."""
    draw = random.Random(seed)
    rows = [
        observation({"label": draw.choice("ab")}, input=make(draw), version=version, at=at, **fields)
        for _ in range(count)
    ]
    write_observations(store, "loans", rows)


def trained(make: Maker, count: int = 2000) -> dict[str, Any]:
    """Return training facts of a version that was trained with such inputs."""
    draw, rows = random.Random(0), Rows()
    for _ in range(count):
        rows.add({"input": [make(draw)]})
    return {"features": rows.summarize()}


def look(store: DirectoryStore, registry: Registry, record: VersionRecord, **rule: Any) -> DriftResult:
    return evaluate_version(store, registry, record, DriftRule(**rule), at=NOON)


def test_inputs_like_those_of_training_are_steady(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """The same inputs as in training drift nowhere, and what was looked at is counted."""
    record = publish("loans", "1.0", training=trained(loan))
    keep(store, loan, 400)
    found = look(store, registry, record)
    assert (found.status, found.predictions, found.rows, found.unreadable) == ("steady", 400, 400, 0)
    assert {field.field for field in found.fields} == {
        "input.age", "input.country", "length(input.purpose)", "words(input.purpose)",
    }  # fmt: skip
    assert not any(field.drifted for field in found.fields)
    assert found.new_fields == ()


def test_a_field_that_moved_has_drifted_and_says_how(
    store: DirectoryStore, registry: Registry, publish: Publish
) -> None:
    """Older people and another country: both fields have drifted, the others have not."""
    record = publish("loans", "1.0", training=trained(loan))
    keep(store, lambda draw: loan(draw, years=8, country="BR"), 400)
    found = look(store, registry, record)
    assert found.status == "drifted"
    drifted = {field.field: field for field in found.fields if field.drifted}
    assert set(drifted) == {"input.age", "input.country"}
    assert drifted["input.age"].ks is not None
    assert drifted["input.age"].ks > 0.25
    assert drifted["input.age"].change.startswith("median 4")
    assert "'BR' 0 % → 3" in drifted["input.country"].change


def test_a_field_that_is_gone_has_drifted_and_a_new_one_is_named(
    store: DirectoryStore, registry: Registry, publish: Publish
) -> None:
    """A client that renames a field is seen by both names."""
    record = publish("loans", "1.0", training=trained(loan))

    def renamed(draw: random.Random) -> dict[str, Any]:
        document = loan(draw)
        document["years"] = document.pop("age")
        return document

    keep(store, renamed, 300)
    found = look(store, registry, record)
    assert [(field.field, field.change) for field in found.fields if field.drifted] == [
        ("input.age", "missing 0 % → 100 %")
    ]
    assert found.new_fields == ("input.years",)


def test_an_earlier_window_is_a_reference_for_outputs_too(
    store: DirectoryStore, registry: Registry, publish: Publish
) -> None:
    """A week ago answers were a or b alike; now nearly all are a: the output has drifted, the input has not."""
    record = publish("loans", "1.0")
    keep(store, loan, 400, at=NOON - 7 * DAY - timedelta(hours=2))
    draw = random.Random(3)
    now = [
        observation({"label": "a" if draw.random() < 0.95 else "b"}, input=loan(draw), version="1.0", at=NOON - DAY / 8)
        for _ in range(400)
    ]
    write_observations(store, "loans", now)
    found = look(store, registry, record, against="7d")
    assert [field.field for field in found.fields if field.drifted] == ["output.label"]
    assert look(store, registry, record, against="3d").status == "no_reference"


def test_golden_examples_are_a_reference(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """Inputs in the archive and the answers to them are what predictions are compared with."""
    draw = random.Random(0)
    inputs = [ExampleInput(json.dumps(loan(draw)).encode(), "application/json") for _ in range(60)]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in encode_examples(inputs).items():
            archive.writestr(name, data)
    golden = GoldenDocument(
        archive_sha256="0" * 64,
        examples=tuple(
            GoldenExample(input_sha256=each.sha256, answer=GoldenAnswer(kind="json", value={"label": "ab"[place % 2]}))
            for place, each in enumerate(inputs)
        ),
    ).encode()
    record = publish("loans", "1.0", data=written.getvalue(), golden=golden)
    keep(store, loan, 300)
    steady = look(store, registry, record, against="golden")
    assert steady.status == "steady", steady
    assert {"input.age", "output.label"} <= {field.field for field in steady.fields}
    keep(store, lambda draw: loan(draw, years=25), 2000, seed=2)
    moved = look(store, registry, record, against="golden")
    assert [field.field for field in moved.fields if field.drifted] == ["input.age"]


def test_new_words_are_seen_among_rare_ones(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """Texts of a large vocabulary, of which hardly a word is frequent: those of another language have drifted."""
    words = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "lmnrst"]

    def said(draw: random.Random, more: str = "") -> dict[str, Any]:
        return {"text": " ".join(draw.choices(words, k=6)) + more}

    record = publish("loans", "1.0", training=trained(said))
    keep(store, said, 400)
    assert look(store, registry, record).status == "steady"
    keep(store, lambda draw: said(draw, " bitte sofort vielen dank"), 400, seed=2, version="2.0")
    other = publish("loans", "2.0", training=trained(said))
    found = {field.field: field for field in look(store, registry, other).fields}
    assert found["words(input.text)"].drifted
    assert "'bitte' 0 % → 10 %" in found["words(input.text)"].change


def test_pictures_that_get_darker_have_drifted(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """A camera at night: the brightness of pictures is a field."""

    def shot(draw: random.Random, light: int) -> bytes:
        written = io.BytesIO()
        Image.new("L", (16, 16), max(0, min(255, int(draw.gauss(light, 20))))).save(written, "PNG")
        return written.getvalue()

    draw, rows = random.Random(0), Rows()
    for _ in range(500):
        rows.add({"input": [shot(draw, 150)]})
    record = publish("loans", "1.0", training={"features": rows.summarize()})
    kept = [
        observation({}, input=shot(draw, 90), input_type="image/png", version="1.0", at=NOON - DAY / 2)
        for _ in range(250)
    ]
    write_observations(store, "loans", kept)
    found = look(store, registry, record)
    assert [(field.field, field.drifted) for field in found.fields] == [("brightness(input)", True)]


def test_what_nothing_can_be_said_of_says_why(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """No predictions, none with bodies, no reference, nothing in common: each has its own reason, and what to do."""
    record = publish("loans", "1.0")
    assert look(store, registry, record).status == "too_few"
    write_observations(store, "loans", [observation(version="1.0", at=NOON - DAY / 2) for _ in range(5)])
    without = look(store, registry, record)
    assert without.status == "no_bodies"
    assert "observe=bodies" in without.reason
    keep(store, loan, 250)
    nothing = look(store, registry, record)
    assert (nothing.status, "--training-data" in nothing.reason) == ("no_reference", True)
    assert "golden" in look(store, registry, record, against="golden").reason
    other = publish("loans", "2.0", training=trained(lambda draw: {"input": draw.random()}))
    keep(store, lambda draw: {"other": 1.0}, 250, version="2.0", outcome="client_error")
    foreign = look(store, registry, other)
    assert foreign.status == "drifted"
    assert foreign.new_fields == ("input.other",)
    third = publish("loans", "3.0", training={"features": {"output.x": {"kind": "number", "rows": 100, "edges": [1.0],
                                                                        "shares": [1.0]}}})  # fmt: skip
    keep(store, loan, 250, version="3.0", outcome="model_error")
    assert "no field can be compared" in look(store, registry, third).reason


def test_a_rule_of_some_fields_looks_at_no_others(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """Fields of the reference that the rule does not name are not thought to be missing."""
    record = publish("loans", "1.0", training=trained(loan))
    keep(store, loan, 300)
    found = look(store, registry, record, fields=["input.country", "input.purpose"])
    assert {field.field for field in found.fields} == {
        "input.country", "length(input.purpose)", "words(input.purpose)",
    }  # fmt: skip
    assert found.status == "steady"


def test_versions_of_labels_with_a_rule_are_looked_at(
    store: DirectoryStore, registry: Registry, publish: Publish
) -> None:
    """Of a model those versions count that a label points at and whose serving settings say what to compare."""
    for version, drift in (("1.0", {}), ("2.0", None), ("3.0", {})):
        publish("loans", version, training=trained(loan), serving={} if drift is None else {"drift": drift})
    registry.release("loans", "1.0", label="PROD", by="test")
    registry.release("loans", "2.0", label="TEST", by="test")
    keep(store, loan, 250)
    keep(store, loan, 250, version="2.0")
    found = evaluate_drift(store, registry, "loans", at=NOON)
    assert [(result.version, result.status) for result in found] == [("1.0", "steady")]
    assert DriftResult.model_validate_json(found[0].model_dump_json()) == found[0]


def test_many_predictions_are_sampled(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """About as many rows as asked for are looked at, the same ones each time, and all are counted."""
    record = publish("loans", "1.0", training=trained(loan))
    keep(store, loan, 2000)
    rule = DriftRule(min_count=100)
    one, two = (evaluate_version(store, registry, record, rule, at=NOON, sample_rows=500) for _ in range(2))
    assert one.predictions == 2000
    assert 400 < one.rows < 600
    assert one == two


def test_summaries_that_are_none_are_passed_over(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """A record may hold a summary of a later version, or one that somebody wrote by hand: it is no reference."""
    strange = {"input.age": {"kind": "number", "rows": 9}, "input.country": {"kind": "map", "rows": 9}}
    record = publish("loans", "1.0", training={"features": {**strange, "input.x": {"kind": "words", "rows": 0}}})
    keep(store, loan, 250)
    assert look(store, registry, record).status == "no_reference"


def test_a_broken_file_is_left_out_and_named(store: DirectoryStore, registry: Registry, publish: Publish) -> None:
    """The others are looked at all the same."""
    record = publish("loans", "1.0", training=trained(loan))
    keep(store, loan, 250)
    hour = f"{observations_prefix('loans')}{partition(NOON - timedelta(hours=1))}"
    store.create(f"{hour}broken.parquet", b"PAR1 no Parquet PAR1")
    found = look(store, registry, record)
    assert (found.status, found.rows) == ("steady", 250)
    assert [each.partition(": ")[0] for each in found.left_out] == [f"{hour}broken.parquet"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"against": "1h"}, "overlap"),
        ({"against": "yesterday"}, "no time"),
        ({"window": "999999d"}, "longer than observations are ever kept"),
        ({"fields": ["age"]}, "neither below input nor output"),
        ({"fields": ["input.["]}, "no JMESPath"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], says: str) -> None:
    """What a rule cannot mean is said where it is set."""
    with pytest.raises(ValueError, match=says):
        DriftRule(**rule)
