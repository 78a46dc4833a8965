"""Text in messages: what others wrote, made safe to show on a terminal, names that were meant, numbers of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

__all__ = ["close_name", "did_you_mean", "human_bytes", "printable", "printable_json"]

# Escapes of terminals begin with a control character (ECMA-48: ESC, or one of C1's in its place); directional marks
# (Unicode UAX #9) show text in another order than it has. Tabs and line ends only move on.
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_JSON: Final = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LOOKED_AT: Final = 256
"""Comparing two names takes some ten microseconds."""
_NUMBERS: Final = re.compile(r"\d+")


def human_bytes(size: int) -> str:
    """Return ``size``, in bytes, in the binary unit that suits it."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def printable(text: str) -> str:
    r"""Return ``text`` with every control character, save tab and line feed, as its escape: ``\x1b[31m``."""
    return _UNSAFE.sub(_escaped, text)


def printable_json(document: str) -> str:
    r"""Return a JSON document with those that JSON lets stand as ``\u009b``: it means the same to who parses it."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def close_name(name: str, known: Iterable[str], *, same_numbers: bool = False) -> str | None:
    """Return the known name that is closest to ``name``, whatever the case; None where none is close.

    Args:
        name: What was given.
        known: Names that there are; the first 256 are looked at.
        same_numbers: Whether only names with the same numbers are close, as of versions: who writes 2.0 means no 1.0.
    """
    folded = {_folded(each): each for each in islice(known, _LOOKED_AT) if each != name}
    wanted = _folded(name)
    if same_numbers:
        numbers = _numbers(wanted)
        same = {each: real for each, real in folded.items() if _numbers(each) == numbers}
        if len(same) == 1 and numbers:
            return next(iter(same.values()))
        folded = same
    found = get_close_matches(wanted, folded, n=1, cutoff=0.55)
    return folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], what: str = "", *, same_numbers: bool = False) -> str:
    """Return the end of a message that names what was meant, ``; did you mean label 'PROD'?``, or nothing.

    The arguments are those of `close_name`, and what the names are, with a space behind it.
    """
    close = close_name(name, known, same_numbers=same_numbers)
    return "" if close is None else f"; did you mean {what}{close!r}?"


def _folded(name: str) -> str:
    """Return a name without what is easily taken for something else: its case, O for 0, l for 1."""
    return name.casefold().replace("o", "0").replace("l", "1")


def _numbers(folded: str) -> list[int]:
    """Return the numbers in a version, but zeros at the end: those of 1, 1.0 and v1.0.0 are the same."""
    numbers = [int(each) for each in _NUMBERS.findall(folded)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
