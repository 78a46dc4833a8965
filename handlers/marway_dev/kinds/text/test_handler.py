"""What the handler promises: run by `pytest test_handler.py`, with no server."""

from pathlib import Path

from marway_archiver.testing import assert_batch_correct, json_row, load_handler

HERE = Path(__file__).parent


def test_it_answers_alone_and_in_batches() -> None:
    """Each row is answered in a batch as it is alone, and one that is no input fails by itself."""
    with load_handler(HERE / "handler.py") as handler:
        rows = [json_row({"text": "Wake me up"}), json_row("How are you?"), json_row({"nothing": 1})]
        first, second, refused = handler.ask(*rows)
        assert first.json()["label"] == "statement"
        assert second.json()["label"] == "question"
        assert refused.status == 400
        assert_batch_correct(handler, rows)
