"""The models that speed is measured with, each with one request to them and what is known of its answer."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import efficientnet
from wrk import Request

HERE = Path(__file__).parent
ROOT = HERE.parent
TENSOR_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True)
class Tuning:
    """How tuned TorchServe serves a model: with quiet logs, a buffered worker, and these settings of its batches.

    Attributes:
        batch: Rows of a batch.
        delay_ms: How long it waits for them.
        workers: Of the model.
        java_pool: Whether its Java has the larger common pool that Marway's runtime gives it. No guide to tuning
            TorchServe has that, so goals are judged against tunings without; this stricter one is shown beside them.
    """

    batch: int = 1
    delay_ms: int = 0
    workers: int = 1
    java_pool: bool = False

    @property
    def name(self) -> str:
        words = f"batch {self.batch}" + (f" / {self.delay_ms} ms" if self.delay_ms else "")
        words += f", {self.workers} workers" if self.workers > 1 else ""
        return f"tuned + Java pool, {words}" if self.java_pool else f"tuned, {words}"


ONE = Tuning()
EIGHT = Tuning(batch=8, delay_ms=1)
POOLED_ONE = Tuning(java_pool=True)
POOLED_EIGHT = Tuning(batch=8, delay_ms=1, java_pool=True)


@dataclass(frozen=True)
class Workload:
    """One model and one request.

    Attributes:
        name: The model's name.
        title: What it is, in a few words.
        clients: Connections at once, one number after the other.
        publish: Publishes version 1.0 of it; given a registry's URL and a gateway's admin URL for the label PROD.
        request: What is sent.
        right: Whether an answer is one that the model should give; that all targets agree is checked beside this.
        tunings: Of TorchServe.
        workers: Of Marway and of stock TorchServe.
        goal_clients: Those of the clients for which the project has a goal, and so worth more rounds.
    """

    name: str
    title: str
    clients: tuple[int, ...]
    publish: Callable[[str, str], None]
    request: Callable[[], Request]
    right: Callable[[Any], bool]
    tunings: tuple[Tuning, ...] = (ONE, EIGHT)
    workers: int = 1
    goal_clients: tuple[int, ...] = ()


def published(name: str, examples: list[Any], **settings: Any) -> Callable[[str, str], None]:
    """Return what publishes a model of this name: settings are its `handler`, `serialized` file and `workers`."""

    def publish_it(registry: str, admin: str) -> None:
        from marway_archiver import publish

        workers = settings.get("workers", 1)
        made = settings.get("serialized")
        publish(
            model_name=name,
            version="1.0",
            handler=str(HERE / "models" / settings.get("handler", f"{name}.py")),
            serialized_file=made() if made else None,
            registry=registry,
            record={"serving": {"min_workers": workers, "max_workers": workers}},
            examples=[example() if callable(example) else example for example in examples],
            label="PROD",
            gateway=admin,
        )

    return publish_it


def _trained(name: str) -> Callable[[str, str], None]:
    def train(registry: str, admin: str) -> None:
        command = [sys.executable, str(ROOT / "examples" / name / "train.py"), "--registry", registry]
        subprocess.run([*command, "--gateway", admin], check=True, stdout=subprocess.DEVNULL)
        one = [sys.executable, "-m", "marway", "serving", name, "--set", "max_workers=1", "--registry", registry]
        subprocess.run(one, check=True, stdout=subprocess.DEVNULL)

    return train


def floats(count: int, offset: float = 0.0) -> bytes:
    """Return so many little-endian float32, a multiple of 8 of them: eight values over and over."""
    return struct.pack("<8f", *(offset + step / 8 for step in range(8))) * (count // 8)


TINY = Workload(
    name="tiny",
    title="Linear(16, 4), 20 bytes of text",
    clients=(1, 8, 32, 64),
    publish=published("tiny", ["abc", "defgh", "ijk"]),
    request=lambda: Request(b"0123456789abcdefghij", "text/plain"),
    right=lambda answer: len(answer) == 4,
    tunings=(ONE, EIGHT, POOLED_ONE, POOLED_EIGHT),
    goal_clients=(1, 32, 64),
)
INTENT = Workload(
    name="intent",
    title="EmbeddingBag text classifier, 14 bytes of text",
    clients=(1, 32),
    publish=_trained("intent"),
    request=lambda: Request(b"tell me a joke", "text/plain"),
    right=lambda answer: bool(answer["label"] == "tell_joke"),
)
DIGITS = Workload(
    name="digits",
    title="convolutional network, JSON of 8x8 pixels",
    clients=(1, 32),
    publish=_trained("digits"),
    request=lambda: Request((ROOT / "examples/digits/samples/4.json").read_bytes(), "application/json"),
    right=lambda answer: bool(answer["label"] == "4"),
)
EFFICIENTNET = Workload(
    name="efficientnet",
    title="EfficientNet-Lite0, a JPEG of 100 KiB",
    clients=(1, 8),
    publish=published(
        "efficientnet",
        [efficientnet.picture, lambda: efficientnet.picture("flower.jpg")],
        handler="picture.py",
        serialized=efficientnet.torchscript,
        workers=2,
    ),
    request=lambda: Request(efficientnet.picture(), "image/jpeg"),
    right=lambda answer: bool(answer[0][0] == 698),  # palace
    tunings=(ONE, Tuning(workers=2), EIGHT),
    workers=2,
    goal_clients=(1, 8),
)
TENSOR = Workload(
    name="tensor",
    title="Linear(1024, 4) over 1280 rows, 5 MiB of float32",
    clients=(1, 8),
    publish=published("tensor", [floats(1024), floats(2048, 1.0), floats(4096, -2.0)]),
    request=lambda: Request(floats(TENSOR_BYTES // 4), "application/octet-stream"),
    right=lambda answer: len(answer) == 4,
)
WORKLOADS = {each.name: each for each in (TINY, INTENT, DIGITS, EFFICIENTNET, TENSOR)}


def check(workload: Workload, body: bytes) -> None:
    """Raise unless a body is an answer that the model should give."""
    if not workload.right(json.loads(body)):
        raise AssertionError(f"{workload.name} answers {body[:200]!r}")
