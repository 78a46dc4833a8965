"""Text that others wrote, made safe to show on a terminal."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["printable", "printable_json"]

# Escapes of terminals begin with a control character (ECMA-48: ESC, or one of C1's in its place); directional marks
# (Unicode UAX #9) show text in another order than it has. Tabs and line ends only move on.
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_JSON: Final = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return ``text`` with every control character, save tab and line feed, as its escape: ``\x1b[31m``."""
    return _UNSAFE.sub(_escaped, text)


def printable_json(document: str) -> str:
    r"""Return a JSON document with those that JSON lets stand as ``\u009b``: it means the same to who parses it."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
