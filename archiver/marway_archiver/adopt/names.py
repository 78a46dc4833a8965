"""Names of models and versions that other servers accept and Marway does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from marway.errors import InvalidReference
from marway.refs import check_model_name, check_version

__all__ = ["model_name", "version_name"]

_OTHERS: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST: Final = 63


def model_name(theirs: str) -> str:
    """Return what a model is called here: as it was, or as near to it as `marway.refs` allows.

    Raises:
        InvalidReference: Nothing of it can be a name.
    """
    return _nearest(theirs, check_model_name, lambda text: f"m-{text}")


def version_name(theirs: str) -> str:
    """Return what a version is called here; raises as `model_name`."""
    return _nearest(theirs, check_version, str.lower)  # all upper case, it would be a label


def _nearest(theirs: str, check: Callable[[str], str], otherwise: Callable[[str], str]) -> str:
    try:
        return check(theirs)
    except InvalidReference:
        near = _OTHERS.sub("-", theirs)[:_LONGEST].strip("._-")
        if not near:
            raise
    try:
        return check(near)
    except InvalidReference:
        return check(otherwise(near)[:_LONGEST].strip("._-"))
