"""The messages of an inference call, against their generated classes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from marway_sidecar.backends.torchserve.calls import encode_request, prediction_of
from marway_sidecar.backends.torchserve.proto.inference_pb2 import PredictionResponse, PredictionsRequest


@given(st.text(max_size=300), st.text(max_size=40), st.text(max_size=40), st.lists(st.binary(max_size=300), max_size=5))
def test_a_request_is_what_the_class_would_write(name: str, version: str, key: str, value: list[bytes]) -> None:
    """The generated class reads from our bytes what was put into them."""
    read = PredictionsRequest.FromString(encode_request(name, version, key, value))
    assert (read.model_name, read.model_version, dict(read.input)) == (name, version, {key: b"".join(value)})
    assert not read.HasField("sequence_id")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152])
def test_lengths_of_every_number_of_bytes(size: int) -> None:
    """Sizes at which a length takes another byte are written and read as the classes do it."""
    value = b"x" * size
    written = PredictionsRequest(model_name="m", model_version="1", input={"k": value}).SerializeToString()
    assert encode_request("m", "1", "k", [value[:1], value[1:]]) == written
    assert prediction_of(PredictionResponse(prediction=value).SerializeToString()) == value


def test_a_response_with_more_in_it_is_read_too() -> None:
    """Other fields before or behind the prediction, or two of it, are left to the generated class."""
    more = PredictionResponse(prediction=b"a", sequence_id="s").SerializeToString()
    twice = (
        PredictionResponse(prediction=b"a").SerializeToString()
        + PredictionResponse(prediction=b"bc").SerializeToString()
    )
    last = (
        PredictionResponse(sequence_id="s").SerializeToString()
        + PredictionResponse(prediction=b"d").SerializeToString()
    )
    assert [prediction_of(each) for each in (more, twice, last)] == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("response", [b"\x0a", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff\xff\xff"])
def test_half_a_response_is_refused(response: bytes) -> None:
    """Bytes that end too soon are an error, and never a shorter prediction."""
    with pytest.raises(DecodeError):
        prediction_of(response)


def test_grpc_knows_the_setting_that_it_is_given() -> None:
    """The experiment that is turned off exists in the gRPC that is installed, and the caller's own choice is kept."""
    script = (
        "import asyncio, os, marway_sidecar.backends.torchserve, grpc\n"
        "async def main():\n"
        "    await grpc.aio.insecure_channel('127.0.0.1:1').close()\n"
        "asyncio.run(main())\n"
        "print(os.environ['GRPC_EXPERIMENTS'])\n"
    )
    for asked, kept in (("", "-event_engine_client"), ("tcp_rcv_lowat", "tcp_rcv_lowat"), ("no_such", "no_such")):
        own = {"GRPC_EXPERIMENTS": asked} if asked else {}
        environ = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environ | own, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.strip() == kept
        assert ("Unknown experiment" in done.stderr) == (asked == "no_such")
