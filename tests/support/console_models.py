"""A gateway with models to look at in the console: golden examples of each kind, and a pod that answers them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import struct
import wave
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from PIL import Image

from gateway.admin_pod import AdminPod
from gateway.fakes import FakePod, Running, running
from marway.answers.golden import ExampleInput
from marway.records import Proof, Signature, TensorSpec, TrainingFacts, utc_now
from marway.registry import Registry
from marway.wire.comparison import Comparison, FieldChange
from marway.wire.headers import OUTCOME, Outcome
from support.golden_archive import publish_golden

__all__ = ["console_gateway", "picture", "sound"]


def picture() -> bytes:
    """Return a small picture: a handwritten one, more or less."""
    image = Image.new("L", (28, 28), 0)
    for y in range(4, 24):
        for x in range(12, 16):
            image.putpixel((x, y), 230)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def sound() -> bytes:
    """Return a tenth of a second of a tone."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(each / 3))) for each in range(800)))
    return out.getvalue()


async def _answer(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Answer as the model of that name would."""
    model, body = request.path.split("/")[2], pod.requests[-1].body
    headers = {OUTCOME: Outcome.ANSWERED}
    if model == "painter":
        return web.Response(body=picture(), content_type="image/png", headers=headers)
    if model == "speaker":
        return web.Response(body=sound(), content_type="audio/wav", headers=headers)
    if model == "writer":
        response = web.StreamResponse(headers={**headers, "content-type": "text/plain"})
        await response.prepare(request)
        for word in ("Once ", "upon ", "a ", "time."):
            await response.write(word.encode())
            await asyncio.sleep(0.02)
        return response
    if body == b"slow":
        await asyncio.sleep(60)
    if body == b"<script>":
        return web.Response(
            body=b"<script>document.title = 'taken'</script>", content_type="text/html", headers=headers
        )
    said = {"digits": {"digit": 1, "score": 0.98}}.get(model, {"label": "alarm", "score": 0.93})
    return web.Response(body=json.dumps(said).encode(), content_type="application/json", headers=headers)


def publish_all(registry: Registry, directory: Path) -> None:
    """Publish a model for each kind of input and answer."""
    kept = {"serving": {"observe": "bodies"}}
    texts = [
        ExampleInput(b"wake me at seven", "text/plain"),
        ExampleInput(b'{"text": "five minutes, please", "locale": "en"}', "application/json"),
        ExampleInput(b"", "text/plain", 400),
    ]
    answers = [{"label": "alarm", "score": 0.93}, {"label": "timer", "score": 0.71}, {"detail": "the text is empty"}]
    training = TrainingFacts(run_id="run-7", dataset="s3://lake/intents/2026-02", metrics={"accuracy": 0.931})
    files = {"weights.pt": b"\x00" * 20_000, "vocabulary.json": b'{"alarm": 0, "timer": 1}'}
    facts = {"framework": "pytorch", "framework_version": "2.12", "training": training, **kept}
    first = publish_golden(registry, directory, examples=texts, answers=answers, files=files, **facts)
    answers[1] = {"label": "alarm", "confidence": 0.66}
    files = {**files, "weights.pt": b"\x01" * 26_000, "merges.txt": b"a b"}
    facts["training"] = training.model_copy(update={"run_id": "run-8", "metrics": {"accuracy": 0.944}})
    publish_golden(registry, directory, "1.1", label="STG", examples=texts, answers=answers, files=files, **facts)
    registry.prove(
        Proof(
            kind="pod",
            archive_sha256=first.archive.sha256,
            server="torchserve",
            server_versions={"torchserve": "0.12.0", "torch": "2.12", "python": "3.11.7"},
            golden_sha256=first.golden_sha256,
            duration_s=0.41,
            at=utc_now(),
            by="pod pod-0",
        )
    )
    signature = Signature(
        inputs=(TensorSpec(name="pixels", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="digit", datatype="INT64", shape=(-1,)),),
    )
    drawn = ExampleInput(picture(), "image/png")
    publish_golden(
        registry, directory, name="digits", examples=[drawn], answers=[{"digit": 1}], signature=signature, **kept
    )
    for name, given in (
        ("painter", ExampleInput(b"a cat", "text/plain")),
        ("speaker", ExampleInput(b"hi", "text/plain")),
    ):
        publish_golden(registry, directory, name=name, examples=[given], answers=[None], **kept)
    tone = ExampleInput(sound(), "audio/wav")
    publish_golden(registry, directory, name="listener", examples=[tone], answers=[{"text": "la"}], **kept)
    publish_golden(registry, directory, name="writer", serving={"streaming": True, "observe": "bodies"})


@contextlib.asynccontextmanager
async def console_gateway(directory: Path, **flags: object) -> AsyncIterator[tuple[Running, AdminPod, Registry]]:
    """Serve a gateway with these models and one pod."""
    from marway.objects import DirectoryStore

    registry = Registry(DirectoryStore(directory / "registry"))
    publish_all(registry, directory)
    pod = AdminPod("pod-0", registry=registry, behave=_answer)
    pod.comparison = Comparison(
        version="1.1",
        base="1.0",
        pod="pod-0",
        inputs_of="1.0",
        inputs=3,
        compared=3,
        equal=2,
        both_answered=2,
        differences=('example 2: at label: "timer" was expected, "alarm" came',),
        fields=(FieldChange(field="score", change="renamed", before="number", after="number", to="confidence"),),
        p50_s=0.0021,
        base_p50_s=0.0034,
    )
    await pod.start()
    try:
        async with running(pod, registry=registry, observations_flush_s=0.1, **flags) as gateway:
            while not all(each["status"] for each in (await gateway.admin.get("/pods")).json()):
                pass
            yield gateway, pod, registry
    finally:
        await pod.stop()
