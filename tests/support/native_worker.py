"""Workers of the engine `native` in the test's own process: their service, and who calls them over their socket."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from marway.wire.envelope import Answer, Part, Row, decode_answers, row_pieces
from marway_http.frames import HEADER, Kind, frame_header

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open while it is imported
    from ts import async_service, model_loader
    from ts.handler_utils import utils
    from ts.metrics.caching_metric import CachingMetric
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.protocol import otf_message_handler

    from marway_runtime.worker import service

__all__ = ["Client", "service_of", "wait_for"]

_REPLACED = (
    (model_loader, "Service"),
    (async_service, "predict"),
    (utils, "send_intermediate_predict_response"),
    *((otf_message_handler, name) for name in ("send_intermediate_predict_response", "logging")),
    *((otf_message_handler, name) for name in ("_retrieve_buffer", "_retrieve_input_data")),
    (CachingMetric, "add_or_update"),
)


def service_of(
    entry_point: Callable[[Any, Any], Any], directory: Path, monkeypatch: pytest.MonkeyPatch, *, config: str = ""
) -> service.MarwayService:
    """Return the service of a worker whose handler is this function; all it replaces in TorchServe is put back."""
    for owner, name in _REPLACED:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    service.install()
    (directory / "c.yaml").write_text(config or "handler: {}\n")
    found = find_spec("ts")
    assert found is not None
    assert found.origin is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        metrics = MetricsCacheYamlImpl(str(Path(found.origin).parent / "configs" / "metrics.yaml"))
        metrics.initialize_cache()
        metrics.model_name = "m"
        manifest = {"model": {"modelName": "m", "modelVersion": "1.0", "configFile": "c.yaml"}}
        made = service.MarwayService("m", str(directory), manifest, entry_point, None, 1, True, metrics)
    made.set_cl_socket(None)
    return made


class Client:
    """Speaks a sidecar's side of a connection to a worker."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        assert HEADER.unpack(self.read(HEADER.size)) == (0, 0, 0, 0, Kind.WINDOW_UPDATE)

    def send(self, number: int, *values: bytes) -> None:
        """Make a call with a row for each of these bytes."""
        self.send_rows(number, [Row("r", [Part("data", value)]) for value in values])

    def say(self, number: int, text: str, *, stream: bool = False, headers: Mapping[str, str] | None = None) -> None:
        """Make a call with one row of text; its id is `r-NUMBER`."""
        known = {"content-type": "text/plain", **(headers or {})}
        self.send_rows(number, [Row(f"r-{number}", [Part("data", text.encode(), "text/plain")], known, stream)])

    def send_rows(self, number: int, rows: Sequence[Row]) -> None:
        pieces = row_pieces(rows)
        self.socket.sendall(b"".join([frame_header(Kind.REQUEST, number, body=sum(map(len, pieces))), *pieces]))

    def cancel(self, number: int) -> None:
        self.socket.sendall(frame_header(Kind.CANCEL, number))

    def take(self) -> tuple[int, int, list[bytes]]:
        """Return the next frame: kind, number and the bodies of its answers."""
        kind, number, answers = self.take_answers()
        return kind, number, [answer.body for answer in answers]

    def take_answers(self) -> tuple[int, int, list[Answer]]:
        size, number, _, _, kind = HEADER.unpack(self.read(HEADER.size))
        return kind, number, decode_answers(self.read(size))

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part
            data += part
        return data


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
