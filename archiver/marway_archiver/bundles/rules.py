"""How each kind of model server wants its directory; one set of rules for packing and for checking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from marway.archives.entries import Entry
from marway.errors import InvalidArchive
from marway_archiver.bundles.layout import Layout, folders
from marway_archiver.bundles.open_inference import check_open_inference

__all__ = ["check_layout", "saved_model_folder"]

_SAVED_MODELS: Final = ("saved_model.pb", "saved_model.pbtxt")


def check_layout(backend: str, files: Mapping[str, Entry]) -> Layout:
    """Check a model's directory, its files by their names in it; of a server that Marway does not know, any is taken.

    None at all are right for each: the server has the model from elsewhere.

    Raises:
        InvalidArchive: The servers of ``backend`` could not load it; one sentence says what they want.
    """
    if not files:
        return Layout()
    rule = _RULES.get(backend)
    return Layout() if rule is None else rule(files)


def _tensorflow(files: Mapping[str, Entry]) -> Layout:
    if files.keys().isdisjoint(_SAVED_MODELS):
        raise InvalidArchive(
            "it is no SavedModel: TensorFlow Serving wants saved_model.pb in it, or in its one version directory"
        )
    return Layout(framework="tensorflow")


def saved_model_folder(names: Mapping[str, Entry]) -> str | None:
    """Return the one version directory (its name is a number) of an export whose SavedModel is in there, or None.

    Raises:
        InvalidArchive: There are several: a bundle has one version.
    """
    if not names.keys().isdisjoint(_SAVED_MODELS):
        return None
    numbered = [each for each in folders(names) if each.isdigit()]
    found = [each for each in numbered if any(f"{each}/{file}" in names for file in _SAVED_MODELS)]
    if len(found) > 1:
        raise InvalidArchive(f"it holds the versions {', '.join(found)}: give the directory of one of them")
    return found[0] if found else None


_RULES: Final[Mapping[str, Callable[[Mapping[str, Entry]], Layout]]] = {
    "open-inference": check_open_inference,
    "tensorflow-serving": _tensorflow,
}
