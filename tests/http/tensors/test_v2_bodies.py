"""Bodies of the Open Inference Protocol for programs that want tensors, and without binary tensors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.errors import MarwayError
from marway_http.tensors.datatypes import DATATYPES
from marway_http.tensors.tensor import Tensor
from marway_http.tensors.v2_bodies import json_request, tensor_request, tensors_of_response
from marway_http.tensors.v2_to_message import message_of_request

VALUES: dict[str, list[Any]] = {
    **{name: [0, 1] for name, each in DATATYPES.items() if each.kind is int},
    **{name: [0.5, -2.0] for name, each in DATATYPES.items() if each.kind is float},
    "BOOL": [True, False],
    "BYTES": [b"text", "zwölf".encode()],
}


@pytest.mark.parametrize("name", sorted(DATATYPES))
def test_every_datatype_goes_to_servers_that_know_no_binary(name: str) -> None:
    """A binary request becomes one of JSON with the same values, whatever they are of; bytes that are no text too."""
    body, length = tensor_request([Tensor("x", DATATYPES[name], (2,), VALUES[name])])
    message, forms = message_of_request(body, length, name="m")
    (sent,) = json.loads(json_request(message))["inputs"]
    wanted = [value.decode() if isinstance(value, bytes) else value for value in VALUES[name]]
    assert sent == {"name": "x", "datatype": name, "shape": [2], "data": wanted}
    assert forms.binary


def test_bytes_that_are_no_text_go_as_base64() -> None:
    """MLServer's content type for such is said with them."""
    body, length = tensor_request([Tensor("x", DATATYPES["BYTES"], (1,), [b"\xff"])])
    (sent,) = json.loads(json_request(message_of_request(body, length, name="m")[0]))["inputs"]
    assert (sent["data"], sent["parameters"]) == (["/w=="], {"content_type": "base64"})


def test_a_response_is_read_in_either_form() -> None:
    """Outputs of JSON and of bytes are the tensors that they say; what is none is an error of the server's."""
    text = json.dumps(
        {
            "outputs": [
                {"name": "a", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}},
                {"name": "b", "datatype": "FP32", "shape": [1, 1], "data": [0.5]},
            ]
        }
    ).encode()
    a, b = tensors_of_response(text + b"\x01\xff", len(text))
    assert (a.name, list(a.values), b.name, b.shape, list(b.values)) == ("a", [1, -1], "b", (1, 1), [0.5])
    for wrong in (b"", b"{}", b'{"outputs": 3}', b'{"outputs": [{"name": "a", "datatype": "X", "shape": []}]}'):
        with pytest.raises(MarwayError, match="the model server's answer cannot be read"):
            tensors_of_response(wrong, None)
