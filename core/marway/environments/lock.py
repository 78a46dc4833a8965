"""The wheels that a version's requirements came to when it was published, as its record has them."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from marway.errors import InvalidInput

__all__ = ["EnvironmentLock", "Target", "WheelRef", "this_target"]

_TARGET: Final = re.compile(r"(3\.[0-9]{1,2})/((?:linux|darwin)-[a-z0-9_]{1,20})")


class Target(NamedTuple):
    """What wheels are for: a CPython, and a platform such as `linux-x86_64` or `darwin-arm64`."""

    python: str
    platform: str

    def __str__(self) -> str:
        return f"{self.python}/{self.platform}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that a text such as `3.11/linux-x86_64` names.

        Raises:
            InvalidInput: It names none.
        """
        found = _TARGET.fullmatch(text)
        if found is None:
            raise InvalidInput(f"{text[:60]!r} names no Python and platform: write them as in 3.11/linux-x86_64")
        return cls(*found.groups())


def this_target() -> Target:
    """Return what this Python is."""
    return Target(f"{sys.version_info[0]}.{sys.version_info[1]}", f"{sys.platform}-{platform.machine().lower()}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class WheelRef(_Frozen):
    """A wheel: what it is called, its sha256 (hex), and its size in bytes."""

    filename: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl$", max_length=255)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=1)]


class EnvironmentLock(_Frozen):
    """What one Python on one platform needs for a version.

    Attributes:
        python, platform: The `Target` that the wheels are for.
        requirements: What the archive asks for by itself, as PEP 508 has it.
        wheels: All that it comes to, what a pod always has (`PROVIDED`) left out.
    """

    python: str
    platform: str
    requirements: tuple[str, ...] = ()
    wheels: tuple[WheelRef, ...] = ()

    @property
    def target(self) -> Target:
        return Target(self.python, self.platform)

    @property
    def digest(self) -> str:
        """What names the environment: versions that come to the same share one."""
        parts = [str(self.target), *sorted(self.requirements), *sorted(wheel.sha256 for wheel in self.wheels)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
