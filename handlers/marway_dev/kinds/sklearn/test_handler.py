"""What the handler promises: run by `pytest test_handler.py`, with no server."""

from pathlib import Path

from marway_archiver.testing import assert_batch_correct, json_row, load_handler

HERE = Path(__file__).parent


def test_it_answers_alone_and_in_batches() -> None:
    """Each row is answered in a batch as it is alone, and one that is no input fails by itself."""
    with load_handler(HERE / "handler.py") as handler:
        rows = [json_row([5.1, 3.5, 1.4, 0.2]), json_row({"data": [6.7, 3.0, 5.2, 2.3]}), json_row([1, 2])]
        first, second, refused = handler.ask(*rows)
        assert first.json()["label"] == "setosa"
        assert second.json()["label"] == "virginica"
        assert refused.status == 400
        assert_batch_correct(handler, rows)
