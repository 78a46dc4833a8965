"""TorchServe's messages around envelopes: a call of its front end as it came, and the message that answers calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ts.context import RequestProcessor
from ts.protocol.otf_message_handler import create_predict_response

from marway.wire.envelope import KEY, Answer, Row, encode_answers

__all__ = ["Call", "message_of", "pieces_message"]


class Call(NamedTuple):
    """One call of the front end.

    Attributes:
        request_id: TorchServe's own, by which its front end finds the call.
        rows: Those of its envelope, which `field_reader` has unpacked as it came; none where it brought no envelope.
    """

    request_id: str
    rows: Sequence[Row]

    @classmethod
    def of(cls, request: dict[str, Any]) -> Call:
        """Return the call that a request of TorchServe's protocol is."""
        parameters = request["parameters"]
        found = next((each["value"] for each in parameters if each["name"] == KEY), ())
        return cls(request["requestId"].decode(), found)


def message_of(answered: Sequence[tuple[Call, Sequence[Answer], bool]]) -> bytearray:
    """Return the message that says what became of calls: of each its answers, and whether they are all."""
    ((call, _, last), *others) = answered
    # One call that does not stream, which is nearly every one, is over without its saying so.
    plain = last and not others and not (call.rows and call.rows[0].stream)
    return _message([(call, encode_answers(answers), last) for call, answers, last in answered], plain=plain)


def pieces_message(pieces: Sequence[tuple[Call, bytes, bool]]) -> bytearray:
    """Return the message with a piece for each of these calls, and whether it is the last for the front end."""
    return _message(pieces, plain=False)


def _message(packed: Sequence[tuple[Call, bytes, bool]], *, plain: bool) -> bytearray:
    said = _Said([(call.request_id, last) for call, _, last in packed])
    values, context = [value for _, value, _ in packed], None if plain else said
    message: bytearray = create_predict_response(values, said.request_ids, "Prediction success", 200, context)
    return message


class _Said:
    """Stands in for a context when a message is built: says of each call whether other pieces follow.

    A `StreamPredictions` is over only when a piece says that none follows, and a call of continuous batching, too.
    """

    def __init__(self, calls: Sequence[tuple[str, bool]]) -> None:
        self.request_ids = {index: request_id for index, (request_id, _) in enumerate(calls)}
        # By these alone can one message say of some calls that more follows, and of others that nothing does.
        self.stopping_criteria = [_says(last) for _, last in calls]
        self._processors = [RequestProcessor({}) for _ in calls]

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self._processors[index].add_response_property(name, value)

    def get_response_headers(self, index: int) -> dict[str, str]:
        headers: dict[str, str] = self._processors[index].get_response_headers()
        return headers

    def get_response_content_type(self, _: int) -> str | None:
        return None

    def get_response_status(self, _: int) -> tuple[int, str]:
        return 200, ""


def _says(last: bool) -> Callable[[object], bool]:
    return lambda _: last
