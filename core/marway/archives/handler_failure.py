"""Why a handler cannot be loaded, in one line: what went wrong first, where, and what to do about it.

Used where handlers are loaded: in workers, and in the process in which the archiver tries one. Standard library only.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from marway.errors import clip

__all__ = ["first_cause", "handler_failure"]

_TEXT_MAX: Final = 300
_NO_CLASS: Final = "Expected only one class in custom service code"
_NO_METHOD: Final = "Expect handle method in class"
_DEFAULT_HANDLERS: Final = "ts.torch_handler"
_LIBRARY: Final = re.compile(r"cannot open shared object file|image not found|Library not loaded")


def first_cause(exc: BaseException) -> BaseException:
    """Return what a handler raised, where TorchServe put an error of its own over it.

    Its loader takes any ImportError while it imports a handler for "there is no such file", and looks among its own.
    """
    wrong_turn = isinstance(exc, ModuleNotFoundError) and (exc.name or "").startswith(f"{_DEFAULT_HANDLERS}.")
    return exc.__context__ if wrong_turn and exc.__context__ is not None else exc


def handler_failure(exc: BaseException, model_dir: str, handler: str) -> str:
    """Return one line about what TorchServe's loader raised for a handler, named as the manifest names it.

    The archive is unpacked in ``model_dir``.
    """
    last = first_cause(exc)
    causes = [each for each in _chain(last) if each is last or not _is_first_look(each, Path(model_dir), handler)]
    root = causes[-1]
    description = _described(root, Path(model_dir), handler)
    if root is not last:
        description += f"; it led to {_text(last, Path(model_dir))}"
    return description


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its cause, that one's cause, and so on."""
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _is_first_look(exc: BaseException, model_dir: Path, handler: str) -> bool:
    """Whether TorchServe found no file of the handler's name: then it looks among its own handlers, and has one."""
    return isinstance(exc, ModuleNotFoundError) and exc.name == _module(handler) and not _where(exc, model_dir)


def _module(handler: str) -> str:
    return Path(handler.split(":", 1)[0]).name.removesuffix(".py")


def _described(exc: BaseException, model_dir: Path, handler: str) -> str:
    where = _where(exc, model_dir)
    advice = _advice(exc, model_dir, handler)
    description = _text(exc, model_dir) + (f" ({where})" if where else "")
    return f"{description}: {advice}" if advice else description


def _text(exc: BaseException, model_dir: Path) -> str:
    """Return the exception's type and message in one line, with paths in the archive as the archive has them."""
    message = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    for directory in dict.fromkeys((str(model_dir), str(model_dir.resolve()))):
        message = message.replace(f"{directory}/", "")
    # Some errors of ours say all that there is to say.
    name = "" if type(exc).__module__.startswith("marway_runtime.") else f"{type(exc).__name__}: "
    return clip(" ".join(f"{name}{message}".split()) if message else type(exc).__name__, _TEXT_MAX)


def _where(exc: BaseException, model_dir: Path) -> str:
    """Return the file of the archive and the line in it, or "" when none of it had a part."""
    if isinstance(exc, SyntaxError):
        return f"{Path(exc.filename).name} line {exc.lineno}" if exc.filename else ""
    roots = {model_dir, model_dir.resolve()}
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        for root in roots:
            if Path(frame.filename).is_relative_to(root):
                return f"{Path(frame.filename).relative_to(root)} line {frame.lineno}"
    return ""


def _advice(exc: BaseException, model_dir: Path, handler: str) -> str:
    text = str(exc)
    own = _module(handler)
    if isinstance(exc, SyntaxError):
        return "correct the file for the Python of the pods, and pack the archive again"
    if isinstance(exc, (ImportError, OSError)) and _LIBRARY.search(text):
        return "a library of the system is missing: install it in the image of the pod's runtime"
    if isinstance(exc, ModuleNotFoundError):
        if _is_first_look(exc, model_dir, handler):
            return (
                f"the archive has no file {own}.py, and TorchServe no handler of that name: pack with --handler FILE.py"
            )
        return (
            "a file of yours comes into the archive by --extra-files; a package is named in requirements.txt "
            "(--requirements-file), which is locked when the archive is published and installed where it is loaded"
        )
    if isinstance(exc, ImportError):
        if "relative import" in text:
            return "the files of an archive are no package: import by the plain name"
        return (
            "another version than the handler was written for is installed: name the one it needs in requirements.txt"
        )
    if isinstance(exc, FileNotFoundError):
        return "is it in the archive? Weights come in by --serialized-file, other files by --extra-files"
    if text.startswith(_NO_CLASS):
        return (
            f"{own}.py must define one class, or a function `handle`, or name its entry point: --handler {own}.py:NAME"
        )
    if text.startswith(_NO_METHOD):
        return "give the class a method `handle(self, data, context)`"
    if isinstance(exc, SystemExit):
        return "the handler ended its process while it was loaded; it must neither do so nor parse the command line"
    if isinstance(exc, MemoryError):
        return "it needs more memory than its worker has"
    return ""
