import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.trained import InTorchServe, Served, served, trained

WAKE = "wake me up at six"
SENTENCES = [
    WAKE,
    "will it rain in Oslo",
    "play some jazz",
    "where is my parcel",
    "how do you say hello in French",
    "I want to hear a joke about cats",
    "transfer fifty dollars to my savings and tell nobody about it",
]


def rows(*values: Any) -> list[dict[str, Any]]:
    return [{"data": value} for value in values]


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left["label"] == right["label"]
    assert left["scores"] == pytest.approx(right["scores"], abs=2e-4)


def test_an_answer_has_a_label_its_score_and_the_best_three(intent: Served) -> None:
    """One text gives one label, its probability and the three best labels in falling order."""
    answers = intent.ask({"body": WAKE.encode()})
    (body,) = answers.bodies
    assert body["label"] == "set_alarm"
    assert 0.5 < body["score"] <= 1
    assert len(body["scores"]) == 3
    assert list(body["scores"].values()) == sorted(body["scores"].values(), reverse=True)
    assert body["scores"]["set_alarm"] == body["score"]
    assert (answers.statuses, answers.content_types) == ([200], ["application/json"])


@pytest.mark.parametrize(
    "row",
    [
        {"data": WAKE.encode()},
        {"body": bytearray(WAKE.encode())},
        {"data": WAKE},
        {"data": b"\xef\xbb\xbf" + WAKE.encode()},
        {"data": json.dumps(WAKE).encode()},
        {"data": json.dumps({"text": WAKE})},
        {"data": {"text": WAKE}},
        {"data": {"document": WAKE}},
        {"data": {"data": WAKE}},
        {"data": {"instances": [WAKE]}},
        {"body": json.dumps({"instances": [{"text": WAKE}]}).encode()},
        {"data": {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [WAKE]}]}},
        {"data": [WAKE]},
        {"text": WAKE.encode(), "language": b"en"},
        {"utterance": WAKE.encode()},
    ],
)
def test_a_text_is_found_in_every_accepted_form(intent: Served, row: dict[str, Any]) -> None:
    """Bytes, text, JSON and form fields with the same text all get the same answer."""
    assert intent.ask(row).bodies == intent.ask({"data": WAKE}).bodies


def test_a_batch_answers_as_single_calls_do_in_one_forward_pass(intent: Served) -> None:
    """N rows give N answers equal to those of N calls, and the model runs once."""
    singles = [intent.ask(row).bodies[0] for row in rows(*SENTENCES)]
    passes: list[int] = []
    hook = intent.handler.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        batch = intent.ask(*rows(*SENTENCES))
    finally:
        hook.remove()
    assert len(passes) == 1
    assert len(batch.bodies) == len(SENTENCES)
    for single, together in zip(singles, batch.bodies, strict=True):
        assert_same(single, together)


BAD = [
    (b"", "empty"),
    ("  \n", "empty"),
    (b"\xff\xfe\x00", "not UTF-8"),
    (b'{"text": "wake', "not valid JSON"),
    (b"{" * 200_000, "not valid JSON"),
    ({"query": WAKE}, "none of the keys"),
    ({"instances": ["a", "b"]}, "2 items"),
    ([], "0 items"),
    ({"text": 7}, "type int"),
    ({"text": None}, "type NoneType"),
    ([[[[[[[[[[WAKE]]]]]]]]]], "nested too deeply"),
    (b'"\\ud800"', "not valid Unicode"),
    ("a" * 20_001, "the limit is 20000"),
]


@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_bad_row_alone_says_what_is_wrong_and_what_is_accepted(intent: Served, value: Any, reason: str) -> None:
    """A row without a text gets status 400 and a message with the reason and the accepted forms."""
    answers = intent.ask({"data": value})
    assert answers.statuses == [400]
    assert answers.content_types == ["application/json"]
    assert reason in answers.bodies[0]["error"]
    assert '{"text": "..."}' in answers.bodies[0]["error"]


@pytest.mark.parametrize("row", [{}, {"one": b"a", "two": b"b"}])
def test_a_request_without_a_known_field_is_refused(intent: Served, row: dict[str, Any]) -> None:
    """No field at all, or several of which none is known, gets status 400."""
    assert intent.ask(row).statuses == [400]


def test_bad_rows_do_not_touch_their_neighbours(intent: Served) -> None:
    """In a mixed batch every bad row fails by itself, and every good one is answered as if it were alone."""
    values = [value for value, _ in BAD]
    mixed = [item for pair in zip(values, [WAKE] * len(values), strict=True) for item in pair]
    answers = intent.ask(*rows(*mixed))
    assert answers.statuses == [400, 200] * len(values)
    (alone,) = intent.ask({"data": WAKE}).bodies
    for bad, good in zip(answers.bodies[::2], answers.bodies[1::2], strict=True):
        assert list(bad) == ["error"]
        assert_same(good, alone)


@pytest.mark.parametrize("text", ["?!", "🎵", "[urgent] wake me", '"wake me" she said', "7", "a" * 20_000, "\x00"])
def test_odd_texts_are_texts(intent: Served, text: str) -> None:
    """Punctuation, symbols, brackets and quotation marks are no reason to refuse, also between other texts."""
    answers = intent.ask(*rows(WAKE, text.encode(), WAKE))
    assert answers.statuses == [200, 200, 200]
    assert_same(answers.bodies[0], answers.bodies[2])


def test_no_rows_give_no_answers(intent: Served) -> None:
    """An empty batch is answered with an empty list."""
    assert intent.ask().bodies == []


def test_a_call_without_requests_around_it_is_answered(intent: Served) -> None:
    """A tool may call the handler with a context that holds no requests."""
    context = intent.loaded.context
    context.request_processor = None
    assert [answer.get("label") for answer in intent.handler.handle(rows(WAKE, b""), context)] == ["set_alarm", None]


def test_torchserves_worker_encodes_the_answers(intent_in_torchserve: InTorchServe) -> None:
    """TorchServe's own predict turns a mixed batch into a response with both answers in it."""
    service = intent_in_torchserve.service
    service.cl_socket = None
    # TorchServe's own metrics cache leaves a file open, which is a warning and so an error here.
    service.context.metrics = SimpleNamespace(request_ids=None, add_time=lambda *_: None)
    parameters = [[{"name": "data", "contentType": "", "value": value}] for value in (WAKE, "")]
    batch = [{"requestId": b"%d" % index, "parameters": item} for index, item in enumerate(parameters)]
    response = bytes(service.predict(batch))
    assert response.startswith((200).to_bytes(4, "big"))
    assert b'"label": "set_alarm"' in response
    assert b'"error"' in response


def test_labels_that_do_not_fit_the_model_stop_the_load(tmp_path: Path, tmp_path_factory: Any) -> None:
    """An archive whose labels are fewer than the model's scores is refused when it is loaded."""
    directory = tmp_path / "archive"
    shutil.copytree(trained("intent", tmp_path_factory).directory, directory)
    (directory / "labels.json").write_text('["one", "two"]', encoding="utf-8")
    with pytest.raises(RuntimeError, match="2 labels, the model gives 12"), served(directory):
        pass


@pytest.mark.parametrize(
    ("missing", "message"), [("labels.json", "labels.json"), ("model.py", "model.py is not in the archive")]
)
def test_a_missing_file_stops_the_load(
    missing: str, message: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An archive that lacks a file is refused with the file's name."""
    directory = tmp_path / "archive"
    shutil.copytree(trained("intent", tmp_path_factory).directory, directory)
    (directory / missing).unlink()
    with pytest.raises(RuntimeError, match=message), served(directory):
        pass
