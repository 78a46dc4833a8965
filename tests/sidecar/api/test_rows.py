"""From an HTTP request to a row: bodies, forms and headers."""

from __future__ import annotations

import pytest

from marway.errors import InvalidRequest
from marway.wire.envelope import KEY, Part, Row
from marway.wire.request import read_ids
from marway_sidecar.api.call import row_of

TRACE = "00-44444444444444444444444444444444-00f067aa0ba902b7-01"


async def row(body: bytes, content_type: str | None = None, **headers: str) -> Row:
    given = {name if name == "url_path" else name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        given["content-type"] = content_type
    return row_of(given, body, read_ids(given.get)._replace(request_id="asked"))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=1", [("a", b"1")]),
        (b"a=1&b=&c=x+y%3D%26", [("a", b"1"), ("b", b""), ("c", b"x y=&")]),
        (b"text=wake me up at six", [("text", b"wake me up at six")]),
        (b"%C3%BC=%FF", [("ü", b"\xff")]),
        (b"a=1&a=2", [("a", b"1"), ("a", b"2")]),
        ("data=ü".encode(), [("data", "ü".encode())]),
        ("für=1".encode(), [("für", b"1")]),
        (b"data=\xff\xfe", [("data", b"\xff\xfe")]),
        (b"data=hello&", [("data", b"hello")]),
        (b"data=", [("data", b"")]),
        (b"a=1&b", [("a", b"1")]),
        (b"a&b=1", [("a", b""), ("b", b"1")]),
        (b"a=1&&b=2", [("a", b"1"), ("b", b"2")]),
        (b"&a=1", [("a", b"1")]),
        (b"a==", [("a", b"=")]),
        (b"1=2", [("1", b"2")]),
        (b"a=1;b=2", [("a", b"1;b=2")]),
        (b"a=50%", [("a", b"50%")]),
    ],
)
async def test_a_urlencoded_form_is_fields(body: bytes, fields: list[tuple[str, bytes]]) -> None:
    """Pairs of a name and a value are fields, decoded, with no content type of their own."""
    made = await row(body, "application/x-www-form-urlencoded; charset=utf-8")
    assert [(part.name, part.value, part.content_type) for part in made.parts] == [(*field, None) for field in fields]
    assert not made.is_raw


@pytest.mark.parametrize(
    "body",
    [
        b"wake me up at six",
        b"is 1+1=2?",
        b'{"text": "a=b"}',
        b"a == b",
        b"http://x/?a=b",
        b"a=b&and c",
        b"x=1\ny=2",
        b"=1",
        b"=",
        b"&",
    ],
)
async def test_what_curl_calls_a_form_and_is_none_stays_text(body: bytes) -> None:
    """`curl -d TEXT` sends text under a form's content type: it stays whole, under `data`."""
    made = await row(body, "application/x-www-form-urlencoded")
    assert made.parts == [Part("data", body, "application/x-www-form-urlencoded")]
    assert made.is_raw


async def test_a_form_of_too_many_fields_is_refused() -> None:
    """What a form costs goes by its fields: a thousand are taken, more are refused before any is looked at."""
    made = await row(b"&".join([b"a=1"] * 1000), "application/x-www-form-urlencoded")
    assert len(made.parts) == 1000
    with pytest.raises(InvalidRequest, match="more than 1000 fields"):
        await row(b"&".join([b"a=1"] * 1001), "application/x-www-form-urlencoded")


async def test_large_values_are_decoded_whole() -> None:
    """Escapes are read rightly wherever the pieces end in which a large value is decoded."""
    for shift in range(3):
        sent = b"%41" * 50_000
        made = await row(b"a=" + b"x" * shift + sent, "application/x-www-form-urlencoded")
        assert made.parts[0].value == b"x" * shift + b"A" * 50_000


async def test_multipart_fields_keep_every_byte() -> None:
    """Names, content types and bytes of fields and files are as sent, whatever their encoding."""
    body = (
        '--b\r\nContent-Disposition: form-data; name="ü"\r\nContent-Type: application/json\r\n\r\n{}\r\n'
        '--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    ).encode() + b'\x00\xff\r\n--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n\xfe\xff\r\n--b--\r\n'
    made = await row(body, "multipart/form-data; boundary=b")
    assert made.parts == [
        Part("ü", b"{}", None),
        Part("f", b"\x00\xff", "application/octet-stream"),
        Part("data", b"\xfe\xff", None),
    ]
    single = await row(body[: body.index(b"--b", 3)] + b"--b--\r\n", "multipart/form-data; boundary=b")
    assert not single.is_raw


async def test_headers_reach_the_handler_but_no_credentials() -> None:
    """The caller's headers are passed on, but credentials, hop-by-hop headers and what only servers may set."""
    made = await row(
        b"x",
        "text/plain",
        x_tenant="blue",
        accept="text/csv",
        authorization="Bearer x",
        cookie="a=b",
        proxy_authorization="x",
        connection="close",
        x_request_timeout_ms="5",
        x_marway_outcome="x",
        explain="True",
        url_path="x",
        x_request_id="theirs",
    )
    assert made.headers == {
        "content-type": "text/plain",
        "x-tenant": "blue",
        "accept": "text/csv",
        "x-request-id": "asked",
    }


async def test_a_gateway_asks_for_an_explanation() -> None:
    """Marway's own header, and no other, becomes what TorchServe's front end tells handlers: `explain: True`."""
    assert (await row(b"x", x_marway_explain="1")).headers == {"explain": "True", "x-request-id": "asked"}
    for said in ("0", "true", ""):
        assert "explain" not in (await row(b"x", x_marway_explain=said, explain="True")).headers


async def test_the_path_behind_the_version_is_the_handlers() -> None:
    """What a gateway says stood behind the version is `url_path`, which no caller's header of that name is."""
    made = await row(b"x", x_marway_url_path="a%20b/%C3%BC", url_path="theirs")
    assert made.headers == {"url_path": "a b/ü", "x-request-id": "asked"}


@pytest.mark.parametrize(
    ("traceparent", "tracestate", "passed"),
    [
        (TRACE, "a=1,b@c=2", {"traceparent": TRACE, "tracestate": "a=1,b@c=2"}),
        (TRACE, "no state", {"traceparent": TRACE}),
        (TRACE.replace("4", "0"), "a=1", {}),
    ],
)
async def test_trace_context_is_passed_on_where_it_is_valid(
    traceparent: str, tracestate: str, passed: dict[str, str]
) -> None:
    """Handlers see the caller's trace as it is; what is no trace, and the state of none, is dropped."""
    made = await row(b"x", traceparent=traceparent, tracestate=tracestate)
    assert made.headers == {**passed, "x-request-id": "asked"}


async def test_the_envelopes_name_is_refused_in_every_kind_of_form() -> None:
    """Nobody may pass off a field as an envelope."""
    multipart = f'--b\r\nContent-Disposition: form-data; name="{KEY}"\r\n\r\nx\r\n--b--\r\n'.encode()
    for body, content_type in (
        (f"{KEY}=x".encode(), "application/x-www-form-urlencoded"),
        (multipart, "multipart/form-data; boundary=b"),
    ):
        with pytest.raises(InvalidRequest, match="kept for Marway"):
            await row(body, content_type)
