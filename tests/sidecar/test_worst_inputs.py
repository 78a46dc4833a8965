"""Every parser of the sidecar is given what costs it most: it refuses or reads it, and the loop has its turns."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, encode_rows
from marway_sidecar.backends.base import ServedModel
from support.loop import LOOSE_S, blocked
from support.pod import FakeServer, serving
from support.registry import publish

MIB = 1024 * 1024
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'

WORST: dict[str, tuple[int, str, Callable[[], bytes]]] = {
    "fields": (400, FORM, lambda: b"&".join([b"a=1"] * 3_000_000)),
    "escapes": (200, FORM, lambda: b"a=" + b"%41" * (4 * MIB)),
    "a long name": (200, FORM, lambda: b"a" * (32 * MIB) + b"=1"),
    "text": (200, FORM, lambda: b"no form " * (4 * MIB)),
    "parts": (400, MULTIPART, lambda: (FIELD + b"\r\n") * 300_000 + b"--b--\r\n"),
    "ends of lines": (200, MULTIPART, lambda: FIELD + b"\r\n--" * (4 * MIB) + b"\r\n--b--\r\n"),
    "headers": (400, MULTIPART, lambda: b"--b\r\n" + b"a: b\r\n" * (4 * MIB)),
    "no part": (400, MULTIPART, lambda: b"\r\n" * (8 * MIB)),
    "an envelope's rows": (400, ROWS_CONTENT_TYPE, lambda: b"MWE1" + struct.pack("!I", 16 * MIB) + b"[" * (16 * MIB)),
    "an envelope's parts": (
        400,
        ROWS_CONTENT_TYPE,
        lambda: encode_rows([Row("", [Part(str(n), b"") for n in range(1_000_000)])]),
    ),
}


async def answer(model: ServedModel, row: Row) -> Answer:
    return Answer(200, str(len(row.parts)).encode(), "text")


@pytest.mark.parametrize("kind", WORST)
async def test_fault_worst_input_of_a_pod(registry: Registry, tmp_path: Path, kind: str) -> None:
    """They are refused as the client's fault, or read, and the loop is never held up."""
    status, content_type, make = WORST[kind]
    body = make()
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=answer)) as pod:
        await pod.client.post("/models/some/PROD/load")
        async with blocked() as seen:
            said = await pod.client.post("/predict/some", content=body, headers={"content-type": content_type})
        assert said.status_code == status, said.text
        assert max(seen) < LOOSE_S
        assert "marway_sidecar_loop_blocked_seconds_bucket" in (await pod.client.get("/metrics")).text
