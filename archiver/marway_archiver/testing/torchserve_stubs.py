"""What stands in for TorchServe 0.12 in tests of handlers: the context that they are given, and what they import."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

__all__ = ["HandlerContext", "RequestProcessor", "list_classes", "torchserve_importable"]

_SERVER_VERSION = "0.12.0"


def _dropped(*_: object) -> None:
    """Take a piece of an answer: what a handler returns is what is looked at."""


class RequestProcessor:
    """One request's headers, and the status and headers of its answer."""

    def __init__(self, request_header: Mapping[str, Any]) -> None:
        self._request_header = request_header
        self._status_code = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}

    def get_request_property(self, key: str) -> Any:
        return self._request_header.get(key)

    def get_request_properties(self) -> Mapping[str, Any]:
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status_code, self._reason_phrase = code, reason_phrase

    def get_response_status_code(self) -> int:
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        return self._response_header.get(key)


class Metrics:
    """Takes every metric that a handler emits, and drops it."""

    def __init__(self) -> None:
        self.request_ids: dict[int, str] | None = None
        self.model_name: str | None = None
        self.store: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("add_", "emit_", "get_", "set_")):
            return lambda *_, **__: self
        raise AttributeError(f"metrics have no {name!r}")

    def update(self, *_: Any, **__: Any) -> None:
        return


class HandlerContext:
    """What a handler knows of its model and of the requests of the call that it is in, as `ts.context.Context`.

    Args:
        model_name: The model's name.
        model_dir: Where the archive's files are.
        manifest: `MAR-INF/MANIFEST.json`, parsed.
        gpu_id: The worker's GPU, or None.
        model_yaml_config: The model's configuration file, parsed.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        *,
        gpu_id: int | None = None,
        model_yaml_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config: dict[str, Any] = dict(model_yaml_config or {})
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu_id,
            "batch_size": 1,
            "server_name": "MMS",
            "server_version": _SERVER_VERSION,
            "limit_max_image_pixels": True,
        }
        self.metrics: Any = Metrics()
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] | None = None
        self.cl_socket: Any = SimpleNamespace(sendall=_dropped)
        self.stopping_criteria: Any = None
        self.header_key_sequence_id = os.getenv("TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id")
        self.header_key_sequence_start = os.getenv("TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start")
        self.header_key_sequence_end = os.getenv("TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end")

    def get_request_id(self, idx: int = 0) -> str | None:
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        return self._of(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]:
        return self._of(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        return self._of(idx).get_response_status_code(), self._of(idx).get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        if self.request_processor is not None:
            self.request_processor[idx].report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for each in self.request_processor or ():
            each.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self._of(idx).get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self._of(idx).add_response_property(key, value)

    def get_sequence_id(self, idx: int) -> str:
        return str(self._of(idx).get_request_property(self.header_key_sequence_id))

    def _of(self, idx: int) -> RequestProcessor:
        if self.request_processor is None:
            raise RuntimeError("this context is in no call: there is no request to speak of")
        return self.request_processor[idx]


class PredictionException(Exception):
    """As `ts.utils.util.PredictionException`: a failure with a status of its own."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def list_classes(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """As `ts.utils.util.list_classes_from_module`: the classes that a module defines."""
    return [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if item.__module__ == module.__name__ and (parent_class is None or issubclass(item, parent_class))
    ]


class _Missing(ModuleType):
    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"{self.__name__}.{name} is TorchServe's own code, which the test kit does not stand in for: "
            "pip install 'marway[runtime]'",
            name="ts",
        )


def _modules() -> dict[str, ModuleType]:
    contents: dict[str, dict[str, Any]] = {
        "ts": {"__version__": _SERVER_VERSION},
        "ts.context": {"Context": HandlerContext, "RequestProcessor": RequestProcessor},
        "ts.handler_utils": {},
        "ts.handler_utils.utils": {"send_intermediate_predict_response": _dropped},
        "ts.utils": {},
        "ts.utils.util": {"PredictionException": PredictionException, "list_classes_from_module": list_classes},
    }
    made: dict[str, ModuleType] = {}
    for name, members in contents.items():
        module = ModuleType(name, "Stands in for TorchServe's module (marway_archiver.testing).")
        vars(module).update(members)
        made[name] = module
    for name in ("ts.torch_handler", "ts.torch_handler.base_handler"):
        made[name] = _Missing(name)
    for name, module in made.items():
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(made[parent], child, module)
    return made


@contextmanager
def torchserve_importable() -> Iterator[None]:
    """Let `import ts` work in the block: TorchServe itself where it is installed, else what stands in for it."""
    if "ts" in sys.modules or find_spec("ts") is not None:
        yield
        return
    made = _modules()
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)
