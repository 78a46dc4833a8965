from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from marway_archiver.testing import assert_batch_correct, json_row, text_row
from support.trained import Served, in_torchserve

TEXT = "Wake me up at six.  Play some jazz!\nwill it rain in Oslo"
SENTENCES = ["Wake me up at six.", "Play some jazz!", "will it rain in Oslo"]
LABELS = ["set_alarm", "play_music", "weather"]


@pytest.fixture
def sent(streaming: Served, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the handler sends before it returns."""
    pieces: list[Any] = []

    def send(outputs: list[Any], ids: dict[int, str], message: str, code: int, context: Any) -> None:
        assert (list(ids), code) == ([0], 200)
        assert context is streaming.loaded.context
        pieces.extend(outputs)

    module = sys.modules[type(streaming.handler).__module__]
    monkeypatch.setattr(module, "send_intermediate_predict_response", send)
    return pieces


def lines(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_sentence_is_sent_before_the_next_is_classified(streaming: Served, sent: list[Any]) -> None:
    """One line a sentence goes out after one pass of the model each; the summary is what the handler returns."""
    seen: list[int] = []
    hook = streaming.handler.model.register_forward_hook(lambda *_: seen.append(len(sent)))
    try:
        (answer,) = streaming.loaded.ask(text_row(TEXT))
    finally:
        hook.remove()
    assert seen == [0, 1, 2]
    got = [json.loads(piece) for piece in sent]
    assert [line["sentence"] for line in got] == SENTENCES
    assert [TEXT[line["start"] : line["end"]] for line in got] == SENTENCES
    assert [line["label"] for line in got] == LABELS
    (summary,) = lines(answer.text)
    assert summary["sentences"] == 3
    assert summary["score"] == max(summary["scores"].values())
    assert (answer.status, answer.content_type) == (200, "application/x-ndjson")


def test_a_sentence_is_labelled_as_a_text_of_its_own_is(streaming: Served, intent: Served, sent: list[Any]) -> None:
    """The labels and scores are those of `text_classifier` for each sentence."""
    streaming.loaded.ask(text_row(TEXT))
    for piece, sentence in zip(map(json.loads, sent), SENTENCES, strict=True):
        (alone,) = intent.ask({"data": sentence}).bodies
        assert (piece["label"], piece["score"]) == (alone["label"], pytest.approx(alone["score"], abs=2e-4))


def test_several_rows_get_all_their_lines_at_once(streaming: Served, sent: list[Any]) -> None:
    """In a batch nothing is sent ahead: each row's answer has the lines that it has alone, in their order."""
    texts = [TEXT, "tell me a joke", "where is my parcel? play some jazz"]
    alone = []
    for text in texts:
        (answer,) = streaming.loaded.ask(text_row(text))
        alone.append("".join(sent) + answer.text)
        sent.clear()
    together = streaming.loaded.ask(*map(text_row, texts))
    assert [answer.text for answer in together] == alone
    assert not sent


def test_bad_rows_fail_alone(streaming: Served, sent: list[Any]) -> None:
    """A row without a text gets status 400 and the reason, and nothing is sent for it; its neighbour is answered."""
    answers = streaming.loaded.ask(json_row(7), text_row(TEXT), text_row("  "))
    assert [answer.status for answer in answers] == [400, 200, 400]
    assert "type int" in answers[0].json()["error"]
    assert "empty" in answers[2].json()["error"]
    assert len(lines(answers[1].text)) == 4
    (alone,) = streaming.loaded.ask(json_row(7))
    assert (alone.status, alone.content_type) == (400, "application/json")
    assert not sent


def test_batches_are_consistent(streaming: Served) -> None:
    """Batches of several sizes answer alike, as packing asks."""
    rows = [json_row([]), text_row(""), json_row({"query": 1})]
    assert_batch_correct(streaming.loaded, rows)


def test_torchserves_own_loader_takes_it(streaming_directory: Path) -> None:
    """TorchServe's worker code loads the file, and its own send function takes the pieces."""
    messages: list[bytes] = []
    with in_torchserve(streaming_directory) as theirs:
        context = theirs.service.context
        context.cl_socket = type("Socket", (), {"sendall": lambda _, data: messages.append(bytes(data))})()
        batch = [{"requestId": b"asked", "headers": [], "parameters": [{"name": "data", "value": TEXT.encode()}]}]
        batch[0]["parameters"][0]["contentType"] = b""  # type: ignore[index]
        context.request_processor, rows, context.request_ids = theirs.service.retrieve_data_for_inference(batch)
        (last,) = theirs.handler.handle(rows, context)
    assert json.loads(last)["sentences"] == 3
    assert [sentence.encode() in message for sentence, message in zip(SENTENCES, messages, strict=True)] == [True] * 3
    assert all(b"ts_stream_next" in message for message in messages)
