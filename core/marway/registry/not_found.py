"""Errors about what the registry does not have: they name what it has, and what may have been meant."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from marway.errors import LabelNotFound, ModelNotFound, VersionNotFound
from marway.refs import DEFAULT_LABEL
from marway.text import did_you_mean

__all__ = ["label_not_found", "listed", "model_not_found", "version_not_found"]

_LISTED_MAX: Final = 10
_COMPARED_MAX: Final = 200


def model_not_found(name: str, what: str, models: Iterable[str], beside: Iterable[str]) -> ModelNotFound:
    """Return the error about a model.

    Args:
        name: What was asked for.
        what: What it is instead, in brackets, or nothing.
        models: All that there are.
        beside: Those that are named like it, in the order of their names.
    """
    first = list(itertools.islice(models, _LISTED_MAX + 1))
    meant = did_you_mean(name, itertools.chain(first, itertools.islice(beside, _COMPARED_MAX)), "model ")
    return ModelNotFound(f"there is no model {name!r}{what}: the registry has {listed(first)}{meant}", model=name)


def version_not_found(name: str, version: str, labels: Mapping[str, str], left: Sequence[str]) -> VersionNotFound:
    """Return the error about a version of a model that has these labels and versions."""
    meant = _version_meant(version, left) or did_you_mean(version, labels, "label ")
    return VersionNotFound(
        f"model {name!r} has no version {version!r}: it has {listed(left)}{meant}", model=name, version=version
    )


def label_not_found(name: str, label: str, labels: Mapping[str, str], left: Sequence[str]) -> LabelNotFound:
    """Return the error about a label of a model that has these labels and versions."""
    known = ", ".join(f"{each} → {at}" for each, at in sorted(labels.items())) or "none"
    meant = did_you_mean(label, labels, "label ") or _version_meant(label, left)
    if left and not meant:
        flag = "" if label == DEFAULT_LABEL else f" --label {label}"
        meant = f"; `marway release {name} VERSION{flag}` sets it"
    return LabelNotFound(
        f"model {name!r} has no label {label}: its labels are {known}; its versions are {listed(left)}{meant}",
        model=name,
    )


def listed(names: Iterable[str]) -> str:
    """Return names for a message: all when few, else the first and that there are more."""
    known = list(itertools.islice(names, _LISTED_MAX + 1))
    if not known:
        return "none yet"
    text = ", ".join(known[:_LISTED_MAX])
    return f"{text} and more" if len(known) > _LISTED_MAX else text


def _version_meant(version: str, versions: Sequence[str]) -> str:
    return did_you_mean(version, versions, "version ", same_numbers=True)
