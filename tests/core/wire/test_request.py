"""What a caller says about its request: W3C trace context."""

from __future__ import annotations

import pytest

from marway.wire.request import ids_of, read_ids, trace_context, trace_state

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "valid"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-ff", True),
        (f"01-{TRACE}-{PARENT}-01-more", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"01-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE[1:]}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}-1", False),
        (f"00-{TRACE}-{PARENT}-01\n", False),
        ("", False),
        (None, False),
    ],
)
def test_traceparent(traceparent: str | None, valid: bool) -> None:
    """A traceparent is passed on as it came where the specification calls it valid, and dropped otherwise."""
    assert trace_context(traceparent) == (traceparent if valid else None)


@pytest.mark.parametrize(
    ("tracestate", "valid"),
    [
        ("a=1", True),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        ("fw529a3039@dt=FfbbE , b=2", True),
        (",".join(f"k{number}=v" for number in range(32)), True),
        (",".join(f"k{number}=v" for number in range(33)), False),
        ("a=1,b", False),
        ("A=1", False),
        ("a=1=2", False),
        ("a=ü", False),
        ("a=" + "x" * 257, False),
        ("", False),
        (None, False),
    ],
)
def test_tracestate(tracestate: str | None, valid: bool) -> None:
    """A tracestate is passed on as it came where it is a list of members, and dropped otherwise."""
    assert trace_state(tracestate) == (tracestate if valid else None)


def test_ids_as_headers() -> None:
    """What was read goes on as headers; a tracestate without its trace does not."""
    sent = {
        "x-request-id": "r",
        "x-request-group-id": "g",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "tracestate": "a=1",
    }
    assert read_ids(sent.get).headers() == sent
    sent["traceparent"] = "00-none"
    assert read_ids(sent.get).headers() == {"x-request-id": "r", "x-request-group-id": "g"}


def test_ids_of_bytes() -> None:
    """Headers as ASGI has them say the same as texts do; what is not valid is left out, and a request id is made."""
    headers = {
        b"x-request-id": b"a-1",
        b"x-request-group-id": b"g\xff",
        b"traceparent": f"00-{TRACE}-{PARENT}-01".encode(),
    }
    texts = {name.decode(): value.decode("latin-1") for name, value in headers.items()}
    assert ids_of(headers) == read_ids(texts.get)
    assert ids_of(headers).headers() == {"x-request-id": "a-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert len(ids_of({}).request_id) == 32
