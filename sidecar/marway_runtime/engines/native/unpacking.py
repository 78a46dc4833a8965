"""An archive of the model store as a directory that a handler finds its files in, and what the archive asks for."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from marway.archives.rules import Calling, calling_of, expansion_problem, setting_problem
from marway.errors import LoadFailed, Unavailable, clip

__all__ = ["Unpacked", "unpack"]

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_FILE_BYTES_MAX: Final = 1024 * 1024
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An archive that was unpacked.

    Attributes:
        directory: Of this load alone; whoever unloads it removes it.
        version: As the manifest says it.
        handler: The handler, such as `handler.py` or `handler:entry_point`.
        size_bytes: What the archive's files take.
        config: The archive's own configuration file, empty where it has none.
    """

    directory: Path
    version: str
    handler: str
    size_bytes: int
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_dir(self) -> Path:
        """Where the archive's files are."""
        return self.directory / "model"

    @property
    def calling(self) -> Calling:
        """How its handler is to be called."""
        return calling_of(self.config)

    def seconds(self, key: str, otherwise: float) -> float:
        """Return what the archive says a time-out is to be, in seconds, or what holds where it says nothing."""
        value = self.config.get(key)
        return float(value) if isinstance(value, (int, float)) and value > 0 else otherwise


def unpack(archive: Path, into: Path, title: str, *, sequences: bool = False) -> Unpacked:
    """Unpack an archive into a new directory below ``into``. Blocks.

    Args:
        archive: The file.
        into: A directory that is there.
        title: The version, for messages.
        sequences: Whether its record says that it keeps sequences.

    Raises:
        LoadFailed: It is none, or asks for what this engine does not do.
        Unavailable: The disk has no room for it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            manifest = json.loads(_read(opened, _MANIFEST))["model"]
            config = _config(opened, manifest.get("configFile"), title)
            expanded = sum(entry.file_size for entry in opened.infolist())
            _check(expanded, archive, manifest, setting_problem(config, sequences=sequences), title)
            free = shutil.disk_usage(into).free
            if free < expanded:
                raise Unavailable(
                    f"{title} cannot be loaded: the disk of {into}, into which archives are unpacked, has "
                    f"{free // _MIB} MiB free and it needs {expanded // _MIB + 1} MiB"
                )
            directory = Path(tempfile.mkdtemp(prefix="native-", dir=into))
            try:
                opened.extractall(directory / "model")
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
    except FileNotFoundError as exc:
        raise LoadFailed(f"{title} cannot be loaded: its archive is not in the model store ({archive.name})") from exc
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, RecursionError) as exc:
        what = clip(f"{type(exc).__name__}: {exc}", 200)
        raise LoadFailed(f"the archive of {title} cannot be loaded: it cannot be read ({what})") from exc
    return Unpacked(directory, str(manifest.get("modelVersion", "")), str(manifest["handler"]), expanded, config)


def _check(expanded: int, archive: Path, manifest: Mapping[str, Any], refused: str | None, title: str) -> None:
    """Refuse what would fill the disk, or what this engine would have to pass over."""
    problem = expansion_problem(archive.stat().st_size, expanded)
    problem = f"it {problem}" if problem is not None else refused
    if problem is not None:
        raise _failed(title, problem)
    handler = manifest.get("handler")
    if not isinstance(handler, str) or not handler:
        raise _failed(title, "its manifest names no handler")


def _config(opened: zipfile.ZipFile, name: str | None, title: str) -> Mapping[str, Any]:
    if not name:
        return {}
    try:
        config = yaml.safe_load(_read(opened, name))
    except yaml.YAMLError as exc:
        raise _failed(title, f"its configuration file is no YAML: {clip(str(exc), 200)}") from exc
    return config if isinstance(config, dict) else {}


def _failed(title: str, why: str) -> LoadFailed:
    return LoadFailed(f"the archive of {title} cannot be loaded: {why}")


def _read(opened: zipfile.ZipFile, name: str) -> bytes:
    with opened.open(name) as file:
        return file.read(_FILE_BYTES_MAX)
