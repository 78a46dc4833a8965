"""What the handler promises: run by `pytest test_handler.py`, with no server."""

from pathlib import Path

from marway_archiver.testing import json_row, load_handler, text_row

HERE = Path(__file__).parent


def test_it_answers_in_pieces_and_in_batches() -> None:
    """A text's answer is its pieces; rows that come together get theirs whole, and one that is none fails by itself."""
    with load_handler(HERE / "handler.py") as handler:
        assert list(handler.instance.pieces("wake me up")) == ["WAKE ", "ME ", "UP "]
        first, second, refused = handler.ask(text_row("wake me up"), json_row({"text": "play"}), json_row({"no": 1}))
        assert (first.text, second.text) == ("WAKE ME UP ", "PLAY ")
        assert refused.status == 400
