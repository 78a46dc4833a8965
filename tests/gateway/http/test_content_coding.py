"""Bodies that come compressed: decoded on their way, within the limits, and never passed on as they came."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.errors import BodyTooLarge, InvalidRequest, UnsupportedMedia
from marway.registry import Registry
from marway_gateway.http.body import RequestBody
from marway_gateway.http.content_coding import coding_of, decoded
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
MIB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


CODED = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
}


def body_of(data: bytes, coding: str, *, pieces: int = 1, max_bytes: int = MIB) -> RequestBody:
    """Return a decoded body whose coded data comes in so many pieces."""
    size = max(1, -(-len(data) // pieces))
    coming: Iterator[bytes] = iter([data[at : at + size] for at in range(0, len(data), size)])

    async def read() -> bytes:
        return next(coming, b"")

    return RequestBody(decoded(read, coding), content_length=None, buffered_bytes=max_bytes, max_bytes=max_bytes)


@pytest.mark.parametrize("name", CODED)
async def test_a_coded_body_reaches_the_pod_as_it_is(
    registry: Registry, make_pod: MakePod, tmp_path: Path, name: str
) -> None:
    """Small and large, to every protocol that takes raw bodies; the pod hears nothing of a coding."""
    publish(registry, tmp_path)
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        for path in ("/predict/intent", "/predictions/intent"):
            for body in (b"hello", bytes(range(256)) * 8192):
                answer = await gateway.predict(path, CODED[name](body), content_encoding=name, content_type="x/y")
                assert (answer.status_code, answer.content) == (200, body)
                assert "content-encoding" not in pod.requests[-1].headers


async def test_a_coded_document(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Protocols of tensors read coded documents as well, as tritonclient and TensorFlow's clients may send them."""
    publish(registry, tmp_path)
    async with running(await make_pod(), registry=registry) as gateway:
        document = json.dumps({"instances": 1}).encode()
        said = await gateway.predict("/v1/models/intent:predict", gzip.compress(document), content_encoding="gzip")
        assert (said.status_code, "no list" in said.json()["error"]) == (400, True)


async def test_what_is_not_decoded_is_refused(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Another coding, or several, is 415, and no pod hears of it; what is not what it says is 400."""
    publish(registry, tmp_path)
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        for coding in ("br", "zstd", "gzip, gzip", "compress"):
            refused = await gateway.predict(content_encoding=coding)
            assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media")
        for coding in ("gzip", "deflate"):
            refused = await gateway.predict(content_encoding=coding)
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert (await gateway.predict(content_encoding="identity")).content == b"hello"
    assert len(pod.requests) == 1


async def test_fault_a_body_that_grows_beyond_the_limit(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Of 256 MiB of zeros in 256 KiB, no more is decoded than the limit."""
    publish(registry, tmp_path)
    pod = await make_pod()
    coder = zlib.compressobj(wbits=31)
    bomb = b"".join(coder.compress(bytes(MIB)) for _ in range(256)) + coder.flush()
    async with running(pod, registry=registry, max_body_bytes=MIB, buffered_body_bytes=MIB) as gateway:
        refused = await gateway.predict(body=bomb, content_encoding="gzip")
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert not pod.requests
    body = body_of(bomb, "gzip", max_bytes=2 * MIB)
    with pytest.raises(BodyTooLarge):
        await body.open()
    assert body.size < 3 * MIB


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("pieces", [1, 7, 10_000])
async def test_pieces(coding: str, pieces: int) -> None:
    """However it comes, the body is the same."""
    data = b"".join(str(number).encode() for number in range(100_000))
    body = body_of(CODED[coding](data), coding, pieces=pieces)
    await body.open()
    assert body.whole == data


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_data_that_is_cut_off_or_goes_on(coding: str) -> None:
    """What ends too early, or not where it says, is no body."""
    whole = CODED[coding](b"hello" * 1000)
    for wrong in (whole[:-1], whole[:1], whole[: len(whole) // 2], whole + b"more"):
        with pytest.raises(InvalidRequest):
            await body_of(wrong, coding).open()
    with pytest.raises(InvalidRequest, match="no body"):
        await body_of(b"", coding).open()


def test_names() -> None:
    """A name is read in any case; none, and identity, is none."""
    assert [coding_of(name) for name in (None, b"", b"identity", b" GZip ", b"deflate")] == [
        *(None, None, None, "gzip", "deflate")
    ]
    with pytest.raises(UnsupportedMedia, match="'br'"):
        coding_of(b"br")
