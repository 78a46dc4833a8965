"""Modules that stand in for what handlers import of TorchServe, where it is not installed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

from marway_archiver.testing.context import HandlerContext, RequestProcessor

__all__ = ["list_classes", "torchserve_importable"]

_SERVER_VERSION = "0.12.0"


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


def _dropped(*_: object) -> None:
    """Take a piece of an answer: what a handler returns is what is looked at."""


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
