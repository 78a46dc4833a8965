"""A test kit for handlers: runs one as TorchServe would, singly and batched, with no TorchServe installed.

    from marway_archiver.testing import assert_batch_correct, json_row, load_handler, text_row

    with load_handler("handler.py") as handler:
        answer = handler.ask(text_row("wake me up"))[0]
        assert (answer.status, answer.json()) == (200, {"label": "set_alarm"})
        assert_batch_correct(handler, [text_row("wake me up"), json_row({"text": "play jazz"})])

The handler runs in the test's own process, so a debugger and coverage see it; `marway verify` runs a finished archive
in a process of its own. Where TorchServe is installed the handler imports it; where it is not, modules stand in for
what handlers usually import of it (`ts.context.Context`, `ts.utils.util.PredictionException`).
"""

from marway_archiver.testing.handlers import KitAnswer, LoadedHandler, assert_batch_correct, load_handler
from marway_archiver.testing.rows import Row, bytes_row, form_row, json_row, text_row
from marway_archiver.testing.torchserve_stubs import HandlerContext

__all__ = [
    "HandlerContext",
    "KitAnswer",
    "LoadedHandler",
    "Row",
    "assert_batch_correct",
    "bytes_row",
    "form_row",
    "json_row",
    "load_handler",
    "text_row",
]
