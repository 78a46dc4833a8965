"""Where files that ship with Marway are: beside the code of a checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from marway.errors import InvalidSettings

__all__ = ["shipped"]

_PACKAGE = Path(__file__).resolve().parent


def shipped(relative: str) -> Path:
    """Return the path of a shipped file or folder such as ``config/gateway.toml`` or ``examples/intent``.

    Raises:
        InvalidSettings: It is not there, so the installation is incomplete.
    """
    for root in (_PACKAGE / "_shipped", _PACKAGE.parents[1]):
        path = root / relative
        if path.exists():
            return path
    raise InvalidSettings(f"{relative} is missing from this installation of marway: install it again")
