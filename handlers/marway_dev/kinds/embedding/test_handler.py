"""What the handler promises: run by `pytest test_handler.py`, with no server."""

from pathlib import Path

from marway_archiver.testing import assert_batch_correct, json_row, load_handler

HERE = Path(__file__).parent


def test_it_answers_alone_and_in_batches() -> None:
    """Each row is answered in a batch as it is alone, and one that is no input fails by itself."""
    with load_handler(HERE / "handler.py") as handler:
        rows = [json_row("wake me up"), json_row({"text": "play some jazz"}), json_row({"nothing": 1})]
        first, second, refused = handler.ask(*rows)
        assert abs(sum(x * x for x in first.json()["embedding"]) - 1) < 1e-3
        assert first.json() != second.json()
        assert refused.status == 400
        assert_batch_correct(handler, rows)
