"""The two messages of an inference call as they are on the wire, without the objects of their generated classes.

A body of 50 MiB would be copied three times on its way through a `PredictionsRequest`; here it is copied once, into the
message. The format is protobuf's (https://protobuf.dev/programming-guides/encoding): each field a tag, that is its
number and kind, its length and its bytes; a map's entry is a message of two fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from marway.wire.envelope import Bytes
from marway_sidecar.backends.torchserve.proto import inference_pb2

__all__ = ["encode_request", "prediction_of"]

_BYTES: Final = 2  # the wire type of what has a length: texts, bytes, messages
_MODEL_NAME, _MODEL_VERSION, _INPUT = (number << 3 | _BYTES for number in (1, 2, 3))
_KEY, _VALUE = (number << 3 | _BYTES for number in (1, 2))
_PREDICTION: Final = 1 << 3 | _BYTES


def encode_request(model_name: str, model_version: str, key: str, value: Sequence[Bytes]) -> bytes:
    """Return a `PredictionsRequest` with one input.

    Args:
        model_name: Of the model.
        model_version: Its version.
        key: The input's name.
        value: Its bytes, in pieces.
    """
    size = sum(map(len, value))
    named, keyed = _fixed(model_name, model_version, key)
    tail = bytes((_VALUE,)) + _varint(size)
    entry = bytes((_INPUT,)) + _varint(len(keyed) + len(tail) + size)
    return b"".join([named, entry, keyed, tail, *value])


def prediction_of(response: bytes) -> bytes:
    """Return what a `PredictionResponse` holds for a prediction.

    Raises:
        google.protobuf.message.DecodeError: It is no such message.
    """
    if response and response[0] == _PREDICTION:
        size = shift = 0
        for at in range(1, min(len(response), 6)):
            byte = response[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if size == len(response) - at - 1:
                    return response[at + 1 :]
                break
    return inference_pb2.PredictionResponse.FromString(response).prediction  # with more in it, or empty


@lru_cache(maxsize=1024)
def _fixed(model_name: str, model_version: str, key: str) -> tuple[bytes, bytes]:
    return _text(_MODEL_NAME, model_name) + _text(_MODEL_VERSION, model_version), _text(_KEY, key)


def _text(tag: int, text: str) -> bytes:
    data = text.encode()
    return bytes((tag,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all but the last have the eighth bit set."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
