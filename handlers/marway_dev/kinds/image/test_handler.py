"""What the handler promises: run by `pytest test_handler.py`, with no server."""

from pathlib import Path

from marway_archiver.testing import assert_batch_correct, bytes_row, load_handler

HERE = Path(__file__).parent


def test_it_answers_alone_and_in_batches() -> None:
    """Each row is answered in a batch as it is alone, and one that is no input fails by itself."""
    with load_handler(HERE / "handler.py") as handler:
        rows = [
            bytes_row((HERE / "examples/bright.png").read_bytes()),
            bytes_row((HERE / "examples/dark.png").read_bytes()),
            bytes_row(b"no picture"),
        ]
        first, second, refused = handler.ask(*rows)
        assert first.json()["label"] == "bright"
        assert second.json()["label"] == "dark"
        assert refused.status == 400
        assert_batch_correct(handler, rows)
