"""The handler argument: which file it names, which function, or which of TorchServe's own handlers."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from marway.errors import InvalidArchive
from marway_archiver.contents.manifest import BUILTIN_HANDLERS
from marway_archiver.format.names import shown

__all__ = ["LSP_BUILTIN_HANDLERS", "Handler", "parse_handler"]

LSP_BUILTIN_HANDLERS = frozenset({"BaseHandler", "TorchScriptHandler"})
"""What `BUILTIN_HANDLERS` are, for the C++ backend (`--runtime LSP`)."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A parsed handler.

    Attributes:
        files: Names that its file may have, the usual one first; none for one of TorchServe's own.
        function: The function named after `:`, or None.
    """

    files: tuple[str, ...]
    function: str | None = None


def parse_handler(text: str, runtime: str) -> Handler:
    """Parse ``BUILTIN``, ``FILE``, ``FILE.py``, ``FILE:FUNCTION`` or ``FILE.py:FUNCTION``.

    Args:
        text: The argument, or what a manifest says.
        runtime: The manifest's runtime; `LSP` handlers are shared libraries, named without their ending.

    Raises:
        InvalidArchive: What stands after `:` cannot be a function's name.
    """
    directory, slash, base = text.rpartition("/")
    stem, colon, function = base.partition(":")
    if runtime == "LSP":
        if text in LSP_BUILTIN_HANDLERS:
            return Handler(())
        endings = (".dylib", ".so") if sys.platform == "darwin" else (".so", ".dylib")
        return Handler(tuple(f"{directory}{slash}{stem.removesuffix(end)}{end}" for end in endings))
    if text in BUILTIN_HANDLERS:
        return Handler(())
    if colon and not function.isidentifier():
        raise InvalidArchive(f"handler {shown(text)}: {shown(function)} cannot be a function's name")
    file = stem if stem.endswith(".py") else f"{stem}.py"
    return Handler((f"{directory}{slash}{file}",), function or None)
