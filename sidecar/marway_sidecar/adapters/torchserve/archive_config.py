"""What an archive asks TorchServe for by itself, which TorchServe obeys over what the register call says.

`publish` refuses such an archive, but the registry may hold one that something else wrote.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any, Final

import yaml

from marway.errors import LoadFailed, clip
from marway_sidecar.adapters.base import ServedModel

__all__ = ["check_workers", "unpacked_bytes"]

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_FILE_BYTES_MAX: Final = 1024 * 1024


def check_workers(model: ServedModel) -> None:
    """Refuse an archive whose `minWorkers` is more than the version may have. Blocks.

    An archive that cannot be read is left to TorchServe, which says what is wrong with it.

    Raises:
        LoadFailed: It asks for more; TorchServe would start them before anybody could take them away.
    """
    if model.max_workers is None:
        return
    wanted = _min_workers(model)
    if wanted is not None and wanted > model.max_workers:
        raise LoadFailed(
            f"the archive of {model.name} {model.version} makes TorchServe start {wanted} workers (minWorkers in its "
            f"configuration file), and its serving settings allow {model.max_workers} (max_workers): pack it again "
            "without minWorkers, or allow as many",
            model=model.name,
            version=model.version,
        )


def unpacked_bytes(model: ServedModel) -> int | None:
    """Return what an archive takes unpacked, or None when it cannot be read. Blocks."""
    try:
        with zipfile.ZipFile(model.archive) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return None


def _min_workers(model: ServedModel) -> int | None:
    try:
        with zipfile.ZipFile(model.archive) as archive:
            name = json.loads(_read(archive, _MANIFEST))["model"].get("configFile")
            config = yaml.safe_load(_read(archive, name)) if name is not None else None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    except yaml.YAMLError as exc:
        raise LoadFailed(
            f"the configuration file of {model.name} {model.version} is no YAML: {clip(str(exc), 200)}",
            model=model.name,
            version=model.version,
        ) from exc
    value: Any = config.get("minWorkers") if isinstance(config, dict) else None
    return value if isinstance(value, int) else None


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(_FILE_BYTES_MAX)
