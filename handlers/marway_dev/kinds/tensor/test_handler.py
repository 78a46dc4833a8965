"""What the handler promises: run by `pytest test_handler.py`, with no server."""

from pathlib import Path

from marway_archiver.testing import assert_batch_correct, json_row, load_handler

HERE = Path(__file__).parent


def test_it_answers_alone_and_in_batches() -> None:
    """Each row is answered in a batch as it is alone, and one that is no input fails by itself."""
    with load_handler(HERE / "handler.py") as handler:
        rows = [json_row([0.1, 0.5, -0.4, 0.2]), json_row({"data": [-0.7, 0.3, -0.2, 0.1]}), json_row([1, 2])]
        first, second, refused = handler.ask(*rows)
        assert abs(first.json()[0] - 0.4) < 0.2  # it has learned to add
        assert abs(second.json()[0] + 0.5) < 0.2
        assert refused.status == 400
        assert_batch_correct(handler, rows)
