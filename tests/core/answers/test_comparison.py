"""How a version's answers compare with those of the one before it: fields, types, equality, failures, finiteness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marway.answers.comparison import Comparing, compare_stored
from marway.answers.fields import Fields, field_changes, nonfinite_at
from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample
from marway.direct_release import release_directly
from marway.errors import InvalidRecord, ProofMissing, ReleaseRefused, StateConflict
from marway.records import Proof, VersionRecord, utc_now
from marway.registry import Registry
from marway.wire.comparison import Comparison, FieldChange, comparison_lines, remarks
from support.registry import Publish, record_of

NAN = float("nan")


def answer(value: Any) -> GoldenAnswer:
    """Return an answer as a handler gives it: text, bytes or what becomes JSON."""
    if isinstance(value, GoldenAnswer):
        return value
    if isinstance(value, str):
        return GoldenAnswer(kind="text", value=value)
    if isinstance(value, bytes):
        return GoldenAnswer.of(status=200, kind="bytes", body=value, content_type=None)
    return GoldenAnswer.of(status=200, kind="json", body=json.dumps(value).encode(), content_type=None)


def changed(before: list[Any], after: list[Any]) -> list[tuple[str, str, str | None, str | None, str | None]]:
    """Return what changed about the fields of some answers."""
    sides = Fields(), Fields()
    for fields, values in zip(sides, (before, after), strict=True):
        for value in values:
            fields.add(answer(value))
    return [(each.field, each.change, each.before, each.after, each.to) for each in field_changes(*sides)]


def compared(before: list[Any], after: list[Any]) -> Comparison:
    """Return the comparison of answers to as many inputs."""
    comparing = Comparing("2.0", "1.0")
    for number, pair in enumerate(zip(before, after, strict=True), 1):
        comparing.add(number, answer(pair[0]), answer(pair[1]))
    return comparing.done(inputs=len(before), inputs_of="1.0")


FAILED = GoldenAnswer(status=500, kind="error", value="RuntimeError: oops")
SCORE = {"score": 0.5, "label": "long"}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([SCORE], [{"score": 7, "label": "short"}], []),
        ([SCORE], [{"confidence": 0.5, "label": "long"}], [("score", "renamed", "number", "number", "confidence")]),
        ([SCORE], [{"label": "long"}], [("score", "removed", "number", None, None)]),
        ([SCORE], [{**SCORE, "v": 2}], [("v", "added", None, "number", None)]),
        ([SCORE], [{"confidence": "high", "label": "long"}], [
            ("score", "removed", "number", None, None), ("confidence", "added", None, "string", None)]),
        ([SCORE], [{"score": "0.5", "label": "long"}], [("score", "type", "number", "string", None)]),
        ([SCORE], [{"score": None, "label": "long"}], [("score", "type", "number", "null", None)]),
        ([SCORE, {**SCORE, "score": None}], [SCORE, SCORE], []),  # it may have been null, and never is now
        ([SCORE, SCORE], [SCORE, {"label": "long"}], [
            ("score", "removed", "number", "number, not in every answer", None)]),
        ([{"boxes": [{"x": 1}]}], [{"boxes": []}], []),  # an empty list says nothing of its items
        ([{"boxes": [{"x": 1}]}], [{"boxes": [{"left": 1}]}], [
            ("boxes[].x", "renamed", "number", "number", "boxes[].left")]),
        ([{"cat": 0.9, "dog": 0.1}, {"cow": 1.0}], [{"cat": 0.9}, {"horse": 1.0}], []),  # a map: its keys are values
        ([[1, 2]], [{"values": [1, 2]}], [("", "type", "list", "object", None)]),
        (["text"], [b"\x00\xff"], [("", "type", "text", "bytes", None)]),
        (["text"], [SCORE], [("", "type", "text", "object", None)]),
        ([True], [1], [("", "type", "boolean", "number", None)]),
        ([{"a.b": {"[]": [[1]]}}], [{"a.b": {"[]": [["x"]]}}], [("a.b.[][][]", "type", "number", "string", None)]),
    ],
)  # fmt: skip
def test_fields(before: list[Any], after: list[Any], found: list[Any]) -> None:
    """A field that is new, gone, renamed or of another type is found, and what depends on the data is not."""
    assert changed(before, after) == found


def test_tensors_have_a_type_of_their_own() -> None:
    """A tensor's type is its dtype with its number of dimensions; its sizes and values may differ."""

    def tensor(dtype: str, shape: list[int]) -> GoldenAnswer:
        return GoldenAnswer(kind="tensor", value={"dtype": dtype, "shape": shape, "values": []})

    assert changed([tensor("float32", [1, 2])], [tensor("float32", [1, 7])]) == []
    found = changed([tensor("float32", [1, 2])], [tensor("int64", [2])])
    assert found == [("", "type", "tensor of 2 dimensions of float32", "tensor of 1 dimension of int64", None)]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, [2.5, {"b": [0.0, NAN]}]]}, "at a[1][1].b[1]: NaN"),
        ([float("-inf")], "at [0]: -infinity"),
        (float("inf"), "infinity"),
        ({"a": 10**400, "b": True, "c": None, "d": "NaN"}, None),
        ("NaN", None),
        (GoldenAnswer(kind="tensor", value={"dtype": "float32", "values": [[0.5, NAN]]}), "at [0][1]: NaN"),
    ],
)  # fmt: skip
def test_numbers_that_are_not_finite(value: Any, where: str | None) -> None:
    """NaN and infinities are found wherever they are nested; text that says so is text."""
    assert nonfinite_at(answer(value)) == where


def test_a_version_that_answers_alike_is_not_refused() -> None:
    """Equal answers within the tolerance are counted, and nothing is refused or remarked on."""
    found = compared([SCORE, "text", b"\xff"], [{"score": 0.50001, "label": "long"}, "text", b"\xff"])
    assert (found.compared, found.equal, found.both_answered, found.refused, found.notes) == (3, 3, 3, (), ())
    assert remarks(found) == []


def test_other_values_are_told_and_not_refused() -> None:
    """Answers of the same form with other values are a remark."""
    found = compared([SCORE, SCORE], [SCORE, {"score": 0.5, "label": "LANG"}])
    assert (found.equal, found.refused) == (1, ())
    assert found.differences == ('example 2: at label: "long" was expected, "LANG" came',)
    assert "answers 1 of 2 equal (example 2: at label" in remarks(found)[0]


def test_failures_refuse() -> None:
    """A version that fails what the one before answers is refused; one that fails the same, or mends it, is not."""
    found = compared([SCORE, FAILED], [FAILED, SCORE])
    assert (found.errors, found.base_errors, found.both_answered) == (1, 1, 0)
    assert found.refused == (
        "it fails 1 of 2 inputs that 1.0 answers, such as example 1: status 500: RuntimeError: oops",
    )
    assert "  fields   not compared: both answered no input" in comparison_lines(found)
    assert compared([FAILED, FAILED], [FAILED, SCORE]).refused == ()
    status = answer(SCORE).model_copy(update={"status": 422})
    assert compared([SCORE], [status]).failures == ('example 1: status 422: {"score": 0.5, "label": "long"}',)


def test_nonfinite_answers_refuse() -> None:
    """A NaN where the version before gives a number is refused; one that was there already is told."""
    bad = {"score": NAN, "label": "long"}
    found = compared([SCORE, SCORE], [SCORE, bad])
    assert (found.nonfinite, found.base_nonfinite, found.nonfinite_at) == (1, 0, ("example 2: at score: NaN",))
    assert found.refused == (
        "1 of 2 answers hold NaN or an infinity where those of 1.0 do not, such as example 2: at score: NaN",
    )
    found = compared([bad], [bad])
    assert (found.nonfinite, found.base_nonfinite, found.equal, found.refused) == (1, 1, 1, ())


def test_a_first_version_is_looked_at_by_itself() -> None:
    """Without a version before it, NaN is refused all the same, and there is nothing else to differ."""
    alone = Comparing("1.0", None)
    alone.add(1, None, answer({"score": NAN}))
    alone.add(2, None, FAILED)
    found = alone.done(inputs=2, inputs_of="1.0")
    assert (found.refused, found.equal, found.errors) == (
        *(("1 of 2 answers hold NaN or an infinity, such as example 1: at score: NaN",), 0, 1),
    )
    assert (
        comparison_lines(found)[0]
        == "looked at 1.0 by published golden answers, nothing was run, 2 golden inputs of 1.0:"
    )


def test_medians() -> None:
    """The median time stands beside the old one's, and a version that takes much longer is called slower."""
    comparing = Comparing("2.0", "1.0")
    comparing.add(1, answer(SCORE), answer(SCORE))
    for seconds in (0.001, 3.0, 3.2):
        comparing.time(seconds)
        comparing.base_time(seconds / 1000)
    found = comparing.done(inputs=1, inputs_of="1.0")
    assert (found.p50_s, found.base_p50_s, found.slower, found.refused) == (3.0, 0.003, True, ())
    assert "p50 3.00 s, before 3.0 ms: SLOWER" in remarks(found)[0]
    assert not Comparison(version="2", base="1", p50_s=0.004, base_p50_s=0.001).slower  # nobody sees that


def test_hostile_answers_are_bounded() -> None:
    """Deep, wide and huge answers are compared within bounds, and the result stays small."""
    deep: Any = NAN
    for _ in range(5000):  # deeper than Python's own recursion reaches
        deep = [deep]
    nested = GoldenAnswer.model_construct(status=200, kind="json", content_type=None, value=deep)
    assert str(nonfinite_at(nested)).endswith("NaN")
    fields = Fields()
    fields.add(nested)
    wide = [{f"field {number}": number for number in range(5000)} for _ in range(2)]
    long = {"items": list(range(300_000)), "text": "x" * 1_000_000}
    bare = GoldenAnswer.of(status=200, kind="json", body=b"[" * 100_000, content_type=None)
    assert bare.kind == "text"  # too deep for JSON's reader: compared as text
    before = [nested, *wide, long, bare]
    after = [nested, {"x": 1}, {f"other {n}" * 100: "\x1b" * 1000 for n in range(5000)}, {**long, "text": "y"}, bare]
    found = compared(before, after)
    assert (found.compared, found.equal) == (5, 2)
    assert "more fields than are looked at" in found.notes[0]
    assert len(found.model_dump_json()) < 100_000
    assert all(len(line) < 20_000 for line in comparison_lines(found))
    assert all(len(line) <= 300 for line in found.differences)


def test_lines_are_cut_and_counts_are_not() -> None:
    """A thousand differing answers give ten lines and the right numbers."""
    found = compared([SCORE] * 1000, [{"confidence": NAN, "label": "long"}] * 999 + [FAILED])
    assert (found.compared, found.equal, found.nonfinite, found.errors) == (1000, 0, 999, 1)
    assert (len(found.differences), len(found.nonfinite_at), len(found.fields), len(found.refused)) == (10, 10, 1, 3)


def golden(record: VersionRecord, answers: dict[bytes, Any], *, source: str = "handler") -> bytes:
    """Return a golden document of a record's archive."""
    examples = tuple(
        GoldenExample(input_sha256=ExampleInput(sent).sha256, answer=answer(value)) for sent, value in answers.items()
    )
    document = {"archive_sha256": record.archive.sha256, "source": source, "examples": examples}
    return GoldenDocument.model_validate(document).encode()


@pytest.fixture
def stored(registry: Registry, publish: Publish) -> Registry:
    """intent 1.0 at PROD with two golden answers, and versions that compare with it in all ways, each proved."""
    sets: dict[str, dict[bytes, Any] | None] = {
        "1.0": {b"a": SCORE, b"b": SCORE},
        "1.1": {b"a": SCORE, b"b": {**SCORE, "label": "LANG"}, b"c": SCORE},
        "2.0": {b"a": {"score": NAN, "label": "long"}, b"b": SCORE},
        "3.0": {b"a": {"confidence": 0.5, "label": "long"}},
        "4.0": None,
        "5.0": {b"z": SCORE},
        "6.0": {b"a": FAILED, b"b": SCORE},
    }
    for version, answers in sets.items():
        bare = record_of(f"intent {version}".encode(), version=version)
        record = publish(version=version, golden=None if answers is None else golden(bare, answers))
        registry.prove(
            Proof(
                kind="pod", archive_sha256=record.archive.sha256, server="torchserve", server_versions={},
                golden_sha256=record.golden_sha256, duration_s=1, at=utc_now(), by="pod a",
            )
        )  # fmt: skip
    publish(version="7.0", golden=golden(record_of(b"intent 7.0", version="7.0"), {b"a": SCORE}))
    registry.release("intent", "1.0", by="test")
    return registry


def released(registry: Registry, version: str, **more: Any) -> Comparison:
    arguments = {"label": "PROD", "by": "test", **more}
    return release_directly(registry, "intent", version, **arguments)[1]


def test_a_release_in_the_registry_compares_published_answers(stored: Registry) -> None:
    """Where no pod can be asked, golden answers to the inputs that both versions have are compared."""
    found = released(stored, "1.1")
    assert (found.method, found.base, found.inputs, found.compared, found.equal, found.p50_s) == (
        *("stored", "1.0", 2, 2, 1, None),
    )
    assert stored.state("intent").labels == {"PROD": "1.1"}
    assert released(stored, "1.1").not_compared == "PROD is at 1.1 already"
    found = released(stored, "1.0", force=True)
    assert found.not_compared == "the release was forced"
    assert stored.state("intent").history[-1].forced is True


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("2.0", "1 of 2 answers hold NaN or an infinity where those of 1.0 do not"),
        ("3.0", "its answers have other fields or types: score is now confidence"),
        ("4.0", "4.0 has no golden answers, and 1.0 has 2: nothing shows that it answers those inputs"),
        ("6.0", "it fails 1 of 2 inputs that 1.0 answers"),
    ],
)
def test_a_release_in_the_registry_is_refused(stored: Registry, version: str, why: str) -> None:
    """NaN, failures, another form, or nothing to show where the version before has something, need force."""
    with pytest.raises(ReleaseRefused, match=r"PROD stays at .*release it with --force") as caught:
        released(stored, version)
    assert why in caught.value.message
    assert stored.state("intent").labels == {"PROD": "1.0"}
    released(stored, version, force=True)
    assert stored.state("intent").labels == {"PROD": version}


def test_what_a_release_in_the_registry_does_not_compare_is_said(stored: Registry) -> None:
    """Versions with no input in common are not compared, which is said; other refusals come first."""
    found = released(stored, "5.0")
    assert comparison_lines(found) == ["not compared: 1.0 and 5.0 have golden answers to no input in common"]
    released(stored, "4.0", force=True)
    assert released(stored, "1.0").not_compared == "4.0 has no golden answers"
    with pytest.raises(ProofMissing):
        released(stored, "7.0")
    with pytest.raises(StateConflict, match="not at 9"):
        released(stored, "2.0", if_currently="9")
    with pytest.raises(ReleaseRefused, match="STG is not set"):
        released(stored, "2.0", label="STG")
    found = released(stored, "1.0", label="STG")
    assert (found.base, found.inputs_of, found.compared, found.refused) == (None, "1.0", 2, ())


def test_answers_of_a_callable_have_no_kind(registry: Registry, publish: Publish) -> None:
    """Answers that a publisher's callable gave are compared by their values: its text may be a handler's bytes."""
    records = []
    for version, source, value in (("1.0", "callable", "yes"), ("1.1", "handler", answer("yes"))):
        bare = record_of(f"intent {version}".encode(), version=version)
        given = value if isinstance(value, str) else value.model_copy(update={"content_type": "text/plain"})
        records.append(publish(version=version, golden=golden(bare, {b"a": given}, source=source)))
    found = compare_stored(registry, records[1], records[0])
    assert (found.equal, found.refused) == (1, ())


def test_golden_answers_that_are_gone(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    """Golden answers that the registry has lost are an error that says what to do, and no silent release."""
    bare = record_of(b"intent 1.0")
    record = publish(golden=golden(bare, {b"a": SCORE}))
    (tmp_path / "registry" / "golden" / f"{record.golden_sha256}.json").unlink()
    with pytest.raises(InvalidRecord, match="is not in the registry: publish the version again"):
        compare_stored(registry, record, None)


def test_a_renamed_field_in_words() -> None:
    """Each change of a field is one short phrase."""
    found = Comparison(
        version="2.0", base="1.0", compared=1, inputs=1, inputs_of="1.0", both_answered=1,
        fields=(
            FieldChange(field="a", change="added", after="number"),
            FieldChange(field="b", change="removed", before="string"),
            FieldChange(field="c", change="removed", before="string", after="string, not in every answer"),
            FieldChange(field="d", change="type", before="string", after="number"),
            FieldChange(field="", change="type", before="text", after="object"),
        ),
    )  # fmt: skip
    assert comparison_lines(found)[1] == (
        "  fields   a (number) is new; b (string) is gone; c is not in every answer; d was string and is number; "
        "the answer was text and is object"
    )


def test_the_version_that_a_response_names_is_no_difference() -> None:
    """Responses of the Open Inference Protocol say of which version they are, which always differs."""
    outputs = [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]
    before, after = ({"model_name": "m", "model_version": version, "outputs": outputs} for version in ("1.0", "2.0"))
    assert compared([before], [after]).equal == 1
    found = compared([before], [after | {"outputs": []}])
    assert found.differences == ("example 1: at outputs: 1 items were expected, 0 came",)
    assert compared([{"model_version": "1.0"}], [{"model_version": "2.0"}]).equal == 0
