"""Java's `.properties` files, as `java.util.Properties.load` reads them; TorchServe's configuration is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from marway.errors import InvalidInput

__all__ = ["parse_properties"]

_SPACE: Final = " \t\f"
_NATURAL: Final = re.compile(r"\r\n|\r|\n")
_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def parse_properties(data: bytes, where: str) -> dict[str, str]:
    r"""Return the properties in ``data``; of one that is there twice the last, as Java has it.

    Raises:
        InvalidInput: A `\u` is not followed by four hexadecimal digits.
    """
    found: dict[str, str] = {}
    for number, line in _logical(data.decode("latin-1")):
        key_end = _key_end(line)
        rest = line[key_end:].lstrip(_SPACE)
        if rest[:1] in ("=", ":"):
            rest = rest[1:].lstrip(_SPACE)
        at = f"{where}:{number}"
        found[_unescaped(line[:key_end], at)] = _unescaped(rest, at)
    return found


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with those that continue it and the number of its first; comments and empty ones are not."""
    waiting: list[str] = []
    begun = 0
    for number, natural in enumerate(_NATURAL.split(text), 1):
        line = natural.lstrip(_SPACE)
        if not waiting:
            if not line or line[0] in "#!":
                continue
            begun = number
        if (len(line) - len(line.rstrip("\\"))) % 2:
            waiting.append(line[:-1])
            continue
        yield begun, "".join((*waiting, line))
        waiting = []
    if waiting:
        yield begun, "".join(waiting)


def _key_end(line: str) -> int:
    escaped = False
    for place, letter in enumerate(line):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter in "=:" or letter in _SPACE:
            return place
    return len(line)


def _unescaped(text: str, where: str) -> str:
    if "\\" not in text:
        return text
    found: list[str] = []
    letters = iter(range(len(text)))
    for place in letters:
        if text[place] != "\\" or place + 1 == len(text):
            found.append(text[place])
            continue
        next(letters)
        letter = text[place + 1]
        if letter != "u":
            found.append(_ESCAPES.get(letter, letter))
            continue
        digits = text[place + 2 : place + 6]
        if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
            raise InvalidInput(f"{where}: \\u must be followed by four hexadecimal digits")
        found.append(chr(int(digits, 16)))
        for _ in range(4):
            next(letters)
    return "".join(found)
