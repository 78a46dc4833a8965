"""How long the steps of a handler take, for a call that is traced.

A handler of TorchServe's kind is an object whose `handle` calls its `preprocess`, `inference` and `postprocess`. Those
that it has are timed while one call runs, by attributes of the object that stand before its methods; a function as
handler, and one that is `async def`, have no steps that could be told from outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from marway.wire.envelope import Row
from marway.wire.headers import TIMED
from marway.wire.measurements import SPAN, Measurement

__all__ = ["timed_steps"]

_STEPS: Final = ("preprocess", "inference", "postprocess")
_STEPS_MAX: Final = 32
"""Of one call: a handler may call its own `inference` a thousand times, and too many measurements fail the call."""


@contextmanager
def timed_steps(entry_point: Callable[..., Any], rows: Sequence[Row]) -> Iterator[list[Measurement]]:
    """Time the steps of the handler whose method ``entry_point`` is, where one of its rows is traced; yield them."""
    took: list[Measurement] = []
    if not any(TIMED in row.headers for row in rows):
        yield took
        return
    handler = getattr(entry_point, "__self__", None)
    own = getattr(handler, "__dict__", None)
    replaced = []
    if isinstance(own, dict):  # else nothing can stand before its methods
        for name in _STEPS:
            method = getattr(handler, name, None)
            if name not in own and callable(method):
                with suppress(AttributeError, TypeError):  # a handler that lets nobody set anything is not timed
                    setattr(handler, name, _timed(name, method, took))
                    replaced.append(name)
    try:
        with _step("handler", took):
            yield took
    finally:
        for name in replaced:
            with suppress(AttributeError):
                delattr(handler, name)


def _timed(name: str, method: Callable[..., Any], took: list[Measurement]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with _step(name, took):
            return method(*args, **kwargs)

    return timed


@contextmanager
def _step(name: str, took: list[Measurement]) -> Iterator[None]:
    at, began = time.time(), time.perf_counter()
    try:
        yield
    finally:
        if len(took) < _STEPS_MAX or name == "handler":
            took.append(Measurement(SPAN, name, "s", (("began", f"{at:.6f}"),), time.perf_counter() - began))
