"""Requests of one model as one with all their rows, and its response as theirs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.v2_stacking import RowsRequest, responses_of_stack, rows_of_request, stack_of_requests


def request(*rows: Sequence[bytes], request_id: str = "", datatype: str = "UINT8", width: int = 2) -> bytes:
    """Return a request with an input of these rows, each of so many elements, and another with one number a row."""
    message = pb.ModelInferRequest(model_name="m", id=request_id)
    message.inputs.add(name="x", datatype=datatype, shape=[len(rows), width])
    message.inputs.add(name="n", datatype="UINT8", shape=[len(rows)])
    message.raw_input_contents.extend([b"".join(b"".join(row) for row in rows), bytes(range(len(rows)))])
    return message.SerializeToString()


def stacked(*messages: bytes) -> tuple[list[RowsRequest], pb.ModelInferRequest]:
    found = [each for message in messages if (each := rows_of_request(message)) is not None]
    assert len(found) == len(messages)
    assert len({each.kind for each in found}) == 1
    return found, pb.ModelInferRequest.FromString(stack_of_requests(found))


def echoed(whole: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Return the response of a model that gives back what it takes."""
    response = pb.ModelInferResponse(model_name="m", model_version="1", raw_output_contents=whole.raw_input_contents)
    for each in whole.inputs:
        response.outputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
    return response


def element(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


ROW = st.binary(min_size=2, max_size=2).map(lambda row: [row])
TEXTS = st.lists(st.binary(max_size=5).map(element), min_size=2, max_size=2)


@given(st.lists(st.lists(ROW, min_size=1, max_size=3), min_size=1, max_size=5))
def test_numbers_come_back_to_whom_they_came_from(requests: list[list[list[bytes]]]) -> None:
    """Each request of a stack gets the rows that it gave, under its own id."""
    messages = [request(*rows, request_id=str(index)) for index, rows in enumerate(requests)]
    check(messages, *stacked(*messages))


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=3), min_size=1, max_size=5))
def test_texts_come_back_to_whom_they_came_from(requests: list[list[list[bytes]]]) -> None:
    """The same of BYTES, whose rows are of any length."""
    messages = [request(*rows, request_id=str(index), datatype="BYTES") for index, rows in enumerate(requests)]
    check(messages, *stacked(*messages))


def check(messages: list[bytes], found: list[RowsRequest], whole: pb.ModelInferRequest) -> None:
    assert [each.shape[0] for each in whole.inputs] == [sum(each.rows for each in found)] * 2
    responses = responses_of_stack(echoed(whole).SerializeToString(), found)
    assert responses is not None
    for message, response in zip(messages, map(pb.ModelInferResponse.FromString, responses), strict=True):
        asked = pb.ModelInferRequest.FromString(message)
        assert response.id == asked.id
        assert list(response.raw_output_contents) == list(asked.raw_input_contents)
        assert [list(each.shape) for each in response.outputs] == [list(each.shape) for each in asked.inputs]


def test_what_is_a_requests_own_matter_is_not_stacked() -> None:
    """A sequence, a converted input, other numbers of rows, typed contents, scalars and classes go by themselves."""
    plain = request([b"ab"])
    assert rows_of_request(plain) is not None
    others = [pb.ModelInferRequest.FromString(plain) for _ in range(6)]
    others[0].parameters["sequence_id"].int64_param = 7
    others[1].inputs[0].parameters["content_type"].string_param = "str"
    others[2].inputs[1].shape[0] = 9
    others[3].raw_input_contents.pop()
    others[4].inputs[0].ClearField("shape")
    others[5].outputs.add(name="y").parameters["classification"].int64_param = 2
    assert [rows_of_request(each.SerializeToString()) for each in others] == [None] * 6


def test_other_rows_than_were_asked_for_are_no_responses() -> None:
    """An output that sums up the batch, has no dimension, or no whole rows, belongs to nobody."""
    found, _ = stacked(request([b"ab"]), request([b"cd"]))
    for shape, section in (([1, 2], b"ab"), ([], b"a"), ([2, 2], b"abc")):
        response = pb.ModelInferResponse(raw_output_contents=[section])
        response.outputs.add(name="y", datatype="UINT8", shape=shape)
        assert responses_of_stack(response.SerializeToString(), found) is None
    texts = pb.ModelInferResponse(raw_output_contents=[element(b"one")])
    texts.outputs.add(name="y", datatype="BYTES", shape=[2, 1])
    assert responses_of_stack(texts.SerializeToString(), found) is None
    assert responses_of_stack(b"\xff", found) is None
