"""Fields of documents, and how their values are summed up."""

from __future__ import annotations

import base64
import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from marway.features.collecting import Rows
from marway.features.pictures import brightness
from marway.features.sampling import Sample
from marway.features.summaries import FEATURES_BYTES_MAX, FeatureSummary, fitted
from marway.features.walking import base_of, number_or_text, root_of, values_of
from marway.registry.encoding import encode
from support.registry import record_of


def picture(light: int, *, kind: str = "PNG") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (300, 200), (light, light, light)).save(written, kind)
    return written.getvalue()


def rows_of(values: list[object], root: str = "input") -> Rows:
    rows = Rows()
    for value in values:
        rows.add({root: [value]})
    return rows


def test_a_field_has_the_expression_that_finds_it() -> None:
    """Objects, lists by place and lists of items are walked; null and numbers that are not finite are no values."""
    document = {
        "age": 41,
        "first name": "Ada",
        "none": None,
        "nan": float("nan"),
        "pixels": [1, 2.5],
        "tags": ["a", "b"],
        "picture": {"b64": base64.b64encode(b"bytes").decode()},
        "items": [{"price": 1}, {"price": 3}],
        "large": 10**400,
    }
    assert sorted(values_of("input", document), key=str) == sorted(
        [
            ("input.age", 41.0, 1.0),
            ('input."first name"', "Ada", 1.0),
            ("input.pixels[0]", 1.0, 1.0),
            ("input.pixels[1]", 2.5, 1.0),
            ("length(input.tags)", 2.0, 1.0),
            ("input.tags[]", "a", 0.5),
            ("input.tags[]", "b", 0.5),
            ("input.picture", b"bytes", 1.0),
            ("length(input.items)", 2.0, 1.0),
            ("input.items[].price", 1.0, 0.5),
            ("input.items[].price", 3.0, 0.5),
        ],
        key=str,
    )


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
        max_leaves=40,
    )
)
def test_a_row_counts_once_for_each_field(document: object) -> None:
    """Whatever a row holds, no field has more than one row of it, and no field is more than whole."""
    rows = Rows()
    rows.add({"input": [document]})
    for name, summary in rows.summarize().items():
        assert summary.rows == 1
        assert sum(summary.shares) + summary.rest + summary.missing == pytest.approx(1, abs=1e-4), name
        assert root_of(name) == "input"


def test_parts_of_one_request_count_as_one_row() -> None:
    """A request of four instances is one row, of which each is a quarter."""
    rows = Rows()
    for _ in range(20):
        rows.add({"input": [{"n": 1}, {"n": 1}, {"n": 1}, {"n": 2}]})
    summary = rows.summarize()["input.n"]
    assert (summary.rows, summary.edges, summary.shares) == (20, (1, 2), (0.75, 0.25))


def test_few_numbers_are_told_apart_and_many_lie_in_bins() -> None:
    """Up to twenty different numbers have an edge each; of more, bins hold about as many rows each."""
    few = rows_of([{"n": place % 3} for place in range(300)] + [{}] * 100).summarize()["input.n"]
    assert few.exact
    assert few.edges == (0, 1, 2)
    assert few.shares == (0.25, 0.25, 0.25)
    assert few.missing == 0.25
    many = rows_of([{"n": place} for place in range(1000)]).summarize()["input.n"]
    assert not many.exact
    assert len(many.edges) == 50
    assert many.edges[-1] == 999
    assert set(many.shares) == {0.02}


def test_texts_have_lengths_and_words_and_categories_have_neither() -> None:
    """A field of few different texts is one of categories; what only a few rows say is not named."""
    draw = random.Random(0)
    words = ["wake", "me", "play", "jazz", "stop"]
    rows = rows_of(
        [
            {
                "text": f"{' '.join(draw.choices(words, k=4))} {place}",
                "country": "FR" if place < 3 else draw.choice(["US", "DE"]),
                "id": f"id{draw.random()}",
                "flag": place % 2 == 0,
            }
            for place in range(500)
        ]
    )
    found = rows.summarize()
    assert set(found) == {
        "input.country", "input.flag", "words(input.text)", "length(input.text)", "length(input.id)", "words(input.id)",
    }  # fmt: skip
    assert set(found["words(input.text)"].names) == {*words, "#"}
    assert set(found["input.country"].names) == {"US", "DE"}
    assert found["input.country"].rest == 0.006
    assert set(found["input.flag"].names) == {"true", "false"}


def test_a_rule_names_the_fields_that_are_looked_at() -> None:
    """With expressions there are only those fields, under their own names, derived ones too."""
    rows = Rows(["input.items[].price | max(@)", "output.label"])
    for place in range(30):
        rows.add({"input": [{"items": [{"price": place}, {"price": 100}], "x": 1}], "output": [{"label": "a"}]})
    rows.add({"input": [{"items": [{"price": "a text"}, {"price": 100}]}]})  # of which there is no maximum
    found = rows.summarize()
    assert set(found) == {"input.items[].price | max(@)", "output.label"}
    assert found["input.items[].price | max(@)"].edges == (100,)
    assert found["input.items[].price | max(@)"].missing == pytest.approx(1 / 31, abs=1e-4)


def test_keys_of_maps_are_no_fields() -> None:
    """What is in fewer than 1 % of the rows is left out, and at most so many fields are looked at."""
    rows = rows_of([{"scores": {f"user{place}": 1.0}, "n": 1} for place in range(1000)])
    assert set(rows.summarize()) == {"input.n"}
    assert rows.cut


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_pictures_are_as_bright_as_they_are(kind: str) -> None:
    """Brightness goes from 0 for black to 1 for white, in every format."""
    assert brightness(picture(0, kind=kind)) == pytest.approx(0, abs=0.02)
    assert brightness(picture(51, kind=kind)) == pytest.approx(0.2, abs=0.02)
    assert brightness(picture(255, kind=kind)) == pytest.approx(1, abs=0.02)


def test_what_is_no_sound_picture_has_no_brightness() -> None:
    """Bytes of another kind, and pictures that are cut short or too large, are passed over."""
    assert brightness(b"no picture") is None
    assert brightness(picture(10)[:60]) is None
    assert brightness(b"\x89PNG\r\n\x1a\n" + bytes(100)) is None
    bomb = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(bomb, "PNG")
    assert brightness(bomb.getvalue()) is None


def test_pictures_within_documents_are_found() -> None:
    """A picture as `{"b64": …}`, as TensorFlow Serving's requests have it, has its brightness."""
    data = base64.b64encode(picture(255)).decode()
    assert rows_of([{"image": {"b64": data}}]).summarize()["brightness(input.image)"].edges == (1.0,)


def test_a_sample_is_even_and_bounded() -> None:
    """Each item has the same chance, whatever its place, within the most items and bytes; the same give the same."""
    sample: Sample[int] = Sample(rows_max=1000)
    for item in range(20_000):
        sample.add(item, 10)
    kept = list(sample)
    assert len(kept) == len(sample) == 1000
    assert kept == sorted(kept)
    assert 400 < sum(item < 10_000 for item in kept) < 600
    again: Sample[int] = Sample(rows_max=1000)
    for item in range(20_000):
        again.add(item, 10)
    assert list(again) == kept
    small: Sample[int] = Sample(rows_max=1000, bytes_max=500)
    for item in range(20_000):
        small.add(item, 10)
    assert 1 <= len(small) <= 50
    assert small.seen == 20_000


def test_summaries_of_many_fields_fit_into_a_record() -> None:
    """They are made coarser, then the emptiest fields go; what is stored stays within the bytes, shares whole."""
    draw = random.Random(0)
    rows = rows_of([{f"field_{name:03}": draw.random() for name in range(90)} for _ in range(300)])
    found = fitted(rows.summarize())
    assert len(found) >= 40
    assert all(sum(each.shares) == pytest.approx(1, abs=1e-3) for each in found.values())
    assert all(list(each.edges) == sorted(each.edges) and len(each.edges) <= 10 for each in found.values())
    record = record_of(b"bytes", training={"features": {name: each.model_dump() for name, each in found.items()}})
    without = record.model_copy(update={"training": type(record.training)()})
    assert len(encode(record)) - len(encode(without)) <= FEATURES_BYTES_MAX * 1.05


def test_a_coarser_summary_keeps_its_ends_and_names_the_most_frequent() -> None:
    """The largest number stays an edge, and names that go are part of the rest."""
    summary = rows_of([{"n": place} for place in range(1000)]).summarize()["input.n"].coarser(7, 3)
    assert len(summary.edges) == 7
    assert summary.edges[-1] == 999
    assert sum(summary.shares) == pytest.approx(1)
    words = rows_of([{"text": f"{chr(97 + place % 26) * 3} {place} x{place}"} for place in range(500)])
    summary = words.summarize()["words(input.text)"]
    assert sum(summary.buckets) == pytest.approx(summary.rest, abs=1e-3)
    fewer = summary.coarser(7, 3)
    assert len(fewer.names) == 3
    assert sum(fewer.buckets) == pytest.approx(fewer.rest, abs=1e-3)
    assert sum(fewer.shares) + fewer.rest == pytest.approx(1, abs=1e-3)
    names = FeatureSummary(kind="category", rows=10, names=("a", "b", "c"), shares=(0.5, 0.3, 0.2)).coarser(1, 1)
    assert (names.names, names.shares, names.rest) == (("a",), (0.5,), 0.5)


def test_a_record_with_a_kind_of_a_later_version_is_read() -> None:
    """A summary of an unknown kind, with fields that nobody knows yet, does not make a record unreadable."""
    raw = record_of(b"bytes").model_dump(mode="json")
    raw["training"]["features"] = {"input.x": {"kind": "embedding", "rows": 3, "centre": [1, 2]}}
    record = type(record_of(b"bytes")).model_validate_json(json.dumps(raw))
    assert record.training.features["input.x"].kind == "embedding"


@pytest.mark.parametrize(
    ("text", "value"),
    [("34", 34.0), ("-0.5", -0.5), ("1e3", 1000.0), ("01234", "01234"), ("1_0", "1_0"), ("", ""), ("nan", "nan"),
     ("1e999", "1e999")],
)  # fmt: skip
def test_a_number_in_a_text_is_one(text: str, value: object) -> None:
    """CSV and forms say numbers as text; ids with zeros in front stay texts."""
    assert number_or_text(text) == value


def test_names_say_what_they_are_of() -> None:
    """A feature's field, and whether it is of inputs or outputs, are in its name."""
    assert base_of("length(input.text)") == "input.text"
    assert base_of("input.age") == "input.age"
    assert root_of("words(output.summary)") == "output"
    assert root_of("age") is None
