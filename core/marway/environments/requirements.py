"""`requirements.txt` of an archive, read as pip reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

__all__ = ["PROVIDED", "Requirements", "parse_requirements"]

PROVIDED: Final = frozenset({"marway", "torch", "torchserve"})
"""What every pod has and no environment replaces: the workers themselves are made of it."""

_OPTION: Final = re.compile(r"\s(--?[A-Za-z])")


@dataclass(frozen=True, slots=True)
class Requirements:
    """A requirements file's lines.

    Attributes:
        named: Those that name a package.
        others: Options, URLs without a name, paths: pip's own matter.
    """

    named: tuple[Requirement, ...]
    others: tuple[str, ...]

    def here(self) -> Iterator[Requirement]:
        """Yield those that name a package and hold for this Python, as their markers say."""
        return (each for each in self.named if each.marker is None or each.marker.evaluate())


def parse_requirements(text: str) -> Requirements:
    """Read a requirements file."""
    named: list[Requirement] = []
    others: list[str] = []
    for line in _lines(text):
        try:
            named.append(Requirement(_OPTION.split(line, maxsplit=1)[0].strip()))  # behind it: --hash and others
        except InvalidRequirement:  # noqa: PERF203 - a file of some lines
            others.append(line)
    return Requirements(tuple(named), tuple(others))


def _lines(text: str) -> Iterator[str]:
    """Yield the file's lines as pip joins them, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        if stripped:
            yield stripped
