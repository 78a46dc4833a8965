"""A version's files in the server's model repository: unpacked from its bundle, with the names that it has there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from marway.errors import LoadFailed, MarwayError, clip
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.model_directory import ModelDirectory, Placed, bundle_of
from marway_sidecar.errors import about

__all__ = ["Repository", "renamed_config", "renamed_settings"]

_CONFIG: Final = "config.pbtxt"
_SETTINGS: Final = "model-settings.json"
_WORD: Final = re.compile(
    r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_][A-Za-z0-9_]*|[{}\[\]<>:]|[^\s]""", re.ASCII
)
"""What protobuf's text format is made of, as far as names and nesting are to be told."""


class Repository:
    """The server's model repository. Every method blocks.

    Args:
        root: As this process sees it; this pod's alone.
        backend: Whose bundles it takes.
    """

    def __init__(self, root: Path, backend: str) -> None:
        self._directory = ModelDirectory(root)
        self._backend = backend

    def place(self, model: ServedModel) -> None:
        """Unpack a version's bundle under its name in the server.

        Raises:
            LoadFailed: It cannot be, or a server of the protocol could not load it.
        """
        bundle_of(model, self._backend)
        target = self._directory.place(model)
        try:
            _rename(target, model)
        except (OSError, MarwayError) as exc:
            self._directory.remove(model.server_name)
            why = exc.message if isinstance(exc, MarwayError) else str(exc)
            raise about(model, LoadFailed(f"{model.name} {model.version} cannot be loaded: {why}")) from exc

    def remove(self, server_name: str) -> None:
        """Remove a version's files, if they are there."""
        self._directory.remove(server_name)

    def touch(self, server_name: str) -> None:
        """Have a version's files count as changed, so that the server loads them anew.

        Raises:
            OSError: They are not there.
        """
        for file in self._directory.root.joinpath(server_name).rglob("*"):
            if file.is_file():
                os.utime(file)

    def left(self) -> list[Placed]:
        """Return the versions that are there."""
        return self._directory.left()


def _rename(directory: Path, model: ServedModel) -> None:
    config, settings = directory / _CONFIG, directory / _SETTINGS
    if config.is_file():
        config.write_text(renamed_config(config.read_text(encoding="utf-8"), model.server_name), encoding="utf-8")
        if not any(each.is_dir() and each.name.isdigit() for each in directory.iterdir()):
            raise LoadFailed(
                f"beside its {_CONFIG} is no directory of a version, such as 1/: Triton would load nothing"
            )
    elif settings.is_file():
        text = renamed_settings(settings.read_text(encoding="utf-8"), model.server_name, model.version)
        settings.write_text(text, encoding="utf-8")
    elif not any(each.is_dir() and each.name.isdigit() for each in directory.iterdir()):
        raise LoadFailed(
            f"its bundle has neither {_CONFIG} (Triton), {_SETTINGS} (MLServer) nor a directory 1/ at its root: pack "
            "the directory of one model, in which they lie"
        )


def renamed_config(text: str, name: str) -> str:
    """Return Triton's configuration of a model with this name; one without a name has its directory's already.

    Raises:
        LoadFailed: It is of an ensemble, whose steps name other models.
    """
    depth, before, wants = 0, "", False
    place: tuple[int, int] | None = None
    for found in _WORD.finditer(text):
        word = found.group()
        if word.startswith("#"):
            continue
        if depth == 0 and word == "ensemble_scheduling":
            raise LoadFailed(
                f"its {_CONFIG} describes an ensemble, whose steps name other models, and every version is a model of "
                "its own in the server: make it one model (business logic scripting), or a graph of Marway's"
            )
        if word in "{[<" and len(word) == 1:
            depth += 1
        elif word in "}]>" and len(word) == 1:
            depth -= 1
        elif depth == 0 and wants and word[0] in "\"'":
            place = found.span()
        wants = depth == 0 and (word == "name" or (word == ":" and before == "name"))
        before = word
    if place is None:
        return text
    return f'{text[: place[0]]}"{name}"{text[place[1] :]}'


def renamed_settings(text: str, name: str, version: str) -> str:
    """Return MLServer's settings of a model with this name and version.

    Raises:
        LoadFailed: They are no JSON object.
    """
    try:
        document: Any = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        parameters = document.get("parameters") or {}
        changed = {**document, "name": name, "parameters": {**parameters, "version": version}}
    except (ValueError, TypeError, RecursionError) as exc:
        raise LoadFailed(f"its {_SETTINGS} cannot be read: {clip(str(exc), 200)}") from exc
    return json.dumps(changed, indent=1)
