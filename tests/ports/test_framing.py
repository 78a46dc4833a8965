"""RFC 9112 on every port: where a request ends, and what is refused because two parsers might disagree about it."""

from __future__ import annotations

import json

from support.ports import PROBE, Port

INNER = b"GET /models HTTP/1.1\r\nhost: localhost\r\n\r\n"
UPGRADES = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n",
    "websocket": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    "frames": b"connection: upgrade\r\nupgrade: marway-frames/1\r\n",
}


def head(port: Port, *lines: bytes, method: bytes = b"POST") -> bytes:
    """Return the head of a request with these header lines, each with its end."""
    kind = b"application/json" if port.name == "admin" else b"application/octet-stream"
    first = b"%b %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: %b\r\n" % (method, port.post.encode(), kind)
    return b"%b%b\r\n" % (first, b"".join(lines))


def sized(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def check_whole(port: Port, status: int, body: bytes, sent: bytes) -> None:
    """Check that a request's body was read as one: a model echoes it, and what is no JSON is refused as a whole."""
    if port.name == "admin":
        assert status == 400
    else:
        assert (status, body) == (200, sent)


async def test_fault_an_upgrade_that_is_not_taken_leaves_the_body_a_body(port: Port) -> None:
    """Whatever the body says, and in how many pieces it comes, it is no request (RFC 9110 §7.8)."""
    for upgrade in UPGRADES.values():
        first = head(port, upgrade, sized(INNER))
        for pieces in ((first, INNER, PROBE), (first + INNER + PROBE,)):
            answered, probed = await port.answers(*pieces)
            check_whole(port, answered.status, answered.body, INNER)
            assert probed.status == 200


async def test_an_upgrade_with_a_chunked_body(port: Port) -> None:
    """A body in chunks is one as well, and so is that of the next request on the connection."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
    one = head(port, UPGRADES["websocket"], b"transfer-encoding: chunked\r\n")
    first, second, probed = await port.answers(one, body, one + body, PROBE)
    for each in (first, second):
        check_whole(port, each.status, each.body, INNER)
    assert probed.status == 200


async def test_an_upgrade_with_a_large_body(port: Port) -> None:
    """A body that passes the parser by does so behind such a head as well."""
    large = INNER * 5000
    answered, probed = await port.answers(
        head(port, UPGRADES["websocket"], sized(large)) + large[:70_000], large[70_000:], PROBE
    )
    check_whole(port, answered.status, answered.body, large)
    assert probed.status == 200


async def test_an_upgrade_without_a_body(port: Port) -> None:
    """It is answered as any other request, and so is what stands behind it."""
    asks = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + UPGRADES["websocket"] + b"\r\n"
    assert [each.status for each in await port.answers(asks + asks, PROBE)] == [200, 200, 200]


async def test_an_upgrade_of_http_1_0_is_ignored(port: Port) -> None:
    """HTTP/1.0 knows no upgrade; the connection ends with the answer."""
    asks = b"GET /frames HTTP/1.0\r\n" + UPGRADES["frames"] + b"\r\n"
    (answered,) = await port.answers(asks + PROBE)
    assert answered.status == 404


REFUSED = {
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400),
    "two Hosts in HTTP/1.0": (b"GET /healthz HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    "a Host that is none": (b"GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
    "a Host with a path": (b"GET /healthz HTTP/1.1\r\nhost: localhost/x\r\n\r\n", 400),
    "two in one Host": (b"GET /healthz HTTP/1.1\r\nhost: localhost, localhost\r\nx: y\r\n\r\n", 400),
    "both lengths": (b"content-length: 2\r\ntransfer-encoding: chunked\r\n", 400),
    "two lengths": (b"content-length: 2\r\ncontent-length: 2\r\n", 400),
    "a list of lengths": (b"content-length: 2, 2\r\n", 400),
    "a signed length": (b"content-length: +2\r\n", 400),
    "a hexadecimal length": (b"content-length: 0x2\r\n", 400),
    "no length in its header": (b"content-length: \r\n", 400),
    "a length beyond counting": (b"content-length: 99999999999999999999\r\n", 400),
    "an unknown coding": (b"transfer-encoding: wonderful\r\n", 501),
    "identity": (b"transfer-encoding: identity\r\n", 501),
    "gzip in chunks": (b"transfer-encoding: gzip, chunked\r\n", 501),
    "gzip in chunks, in two headers": (b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501),
    "chunked not last": (b"transfer-encoding: chunked, gzip\r\n", 400),
    "chunked twice": (b"transfer-encoding: chunked, chunked\r\n", 400),
    "an empty coding": (b"transfer-encoding: , chunked\r\n", 400),
    "chunked with a parameter": (b"transfer-encoding: chunked;q=1\r\n", 501),
    "a space before the colon": (b"content-length : 2\r\n", 400),
    "a folded header": (b"x-folded: a\r\n b\r\n", 400),
    "a bare CR": (b"x-bare: a\rb\r\n", 400),
    "a bare LF": (b"x-bare: a\nb\r\n", 400),
    "a NUL": (b"x-nul: a\0b\r\n", 400),
    "chunks in HTTP/1.0": (b"POST /x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "HTTP/2 in a line": (b"GET /healthz HTTP/2.0\r\nhost: localhost\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 505),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n", 501),
    "a target without a slash": (b"GET healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
}


async def test_what_cannot_be_read_for_certain_is_refused(port: Port) -> None:
    """It is answered with a problem, and what stands behind it on the connection is never read as a request."""
    said = {}
    for name, (sent, _) in REFUSED.items():
        raw = sent if b" HTTP/" in sent or sent.startswith(b"GET") else head(port, sent) + b"ab"
        answers = await port.answers(raw + PROBE)
        said[name] = [each.status for each in answers]
        assert answers[0].headers["connection"] == "close"
        assert json.loads(answers[0].body)["status"] == answers[0].status
    assert said == {name: [status] for name, (_, status) in REFUSED.items()}


CHUNKS = {
    "a size with a space": (b"2 \r\nab\r\n0\r\n\r\n", 400),
    "a hexadecimal prefix": (b"0x2\r\nab\r\n0\r\n\r\n", 400),
    "a negative size": (b"-2\r\nab\r\n", 400),
    "a size beyond counting": (b"fffffffffffffffff\r\nab", 400),
    "bare LFs": (b"2\nab\n0\n\n", 400),
    "more than the size": (b"2\r\nabc\r\n0\r\n\r\n", 400),
    "a bare LF in an extension": (b"2;\nab\r\n0\r\n\r\n", 400),
    "endless fields behind it": (b"2\r\nab\r\n0\r\n" + b"x-behind: 1\r\n" * 10_000, 431),
}


async def test_chunks_that_cannot_be_read_for_certain(port: Port) -> None:
    """The request is refused, and nothing behind it is read."""
    said = {}
    for name, (chunks, _) in CHUNKS.items():
        answers = await port.answers(head(port, b"transfer-encoding: chunked\r\n") + chunks + PROBE)
        said[name] = [each.status for each in answers]
    assert said == {name: [status] for name, (_, status) in CHUNKS.items()}


async def test_fields_behind_a_body_are_no_headers(port: Port) -> None:
    """What stands behind a chunked body is not merged into the head (RFC 9110 §6.5.1)."""
    sent = head(port, b"transfer-encoding: chunked\r\n") + b"2\r\n{}\r\n0\r\nx-request-id: theirs\r\nhost: evil\r\n\r\n"
    answered, _ = await port.answers(sent, PROBE)
    assert answered.status == 200
    assert answered.headers["x-request-id"] != "theirs"


async def test_fault_answers_come_in_the_order_of_requests(port: Port) -> None:
    """What is refused behind a request whose answer is due is never answered in its place."""
    good = head(port, sized(b"{}")) + b"{}"
    answered = await port.answers(good + good + b"GET /healthz HTTP/1.1\r\n\r\n" + PROBE)
    assert [each.status for each in answered] == [200, 200]


async def test_an_absolute_target(port: Port) -> None:
    """The path of an absolute target counts, and one without is the root (RFC 9112 §3.2.2)."""
    answered = await port.answers(
        b"GET http://localhost/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
        b"GET http://localhost HTTP/1.1\r\nhost: localhost\r\n\r\n"
        b"GET http://[::1]:80/healthz?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        PROBE,
    )
    assert [each.status for each in answered] == [200, 200, 200, 200]
    assert json.loads(answered[1].body)["status"] == "alive"  # as only the root says


async def test_a_slash_within_a_segment_separates_none(port: Port) -> None:
    """`%2f` is part of a name, and no name has one."""
    paths = [b"/models%2fintent", b"/health%2Fz", b"/%2e%2e/healthz", b"/health%7A"]
    asked = b"".join(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path for path in paths)
    assert [each.status for each in await port.answers(asked, PROBE)] == [404, 404, 404, 200, 200]


async def test_head_is_answered_where_get_is(port: Port) -> None:
    """With the same status and type, and without a body; an answer that never ends ends here."""
    for path in ("/healthz", "/metrics", "/openapi.json", "/models", "/status", "/watch"):
        asked = b"HEAD %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode()
        first, _, rest = (await port.raw(asked, PROBE)).partition(b"\r\n\r\n")
        served = port.name == "sidecar" or path not in ("/status", "/watch")
        assert first.split()[1] == (b"200" if served else b"404")
        assert rest.startswith(b"HTTP/1.1 200 OK")
        assert b"transfer-encoding" not in first.lower()


async def test_head_says_what_get_would(port: Port) -> None:
    """Errors as well; and a route that takes GET says that it takes HEAD."""
    (refused, _) = await port.answers(b"PUT /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", PROBE)
    assert (refused.status, refused.headers["allow"]) == (405, "get, head")
    asked = b"HEAD %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % port.post.encode()
    first, _, rest = (await port.raw(asked, PROBE)).partition(b"\r\n\r\n")
    assert first.split()[1] == b"405"
    assert rest.startswith(b"HTTP/1.1 200 OK")
