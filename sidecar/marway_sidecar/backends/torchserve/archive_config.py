"""What an archive asks of TorchServe by itself, looked at before it is loaded.

TorchServe obeys an archive's own configuration over what the register call says, and takes settings that make every
prediction fail. `publish` refuses such archives, but the registry may hold one that something else wrote.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import yaml

from marway.archives.bounds import expansion_problem
from marway.archives.unsupported_settings import NOT_SERVED
from marway.errors import LoadFailed, clip
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.errors import about

__all__ = ["check_archive", "unpacked_bytes"]

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_FILE_BYTES_MAX: Final = 1024 * 1024


def check_archive(model: ServedModel) -> None:
    """Refuse an archive that is a bomb, asks for more workers than the version may have, or cannot be served. Blocks.

    An archive that cannot be read is left to TorchServe, which says what is wrong with it.

    Raises:
        LoadFailed: One sentence on the first thing that is wrong.
    """
    config = _configuration(model)
    for key in sorted(NOT_SERVED.keys() & config.keys()):
        if config[key] is not False or not NOT_SERVED[key].off:
            raise _failed(model, f"its configuration file says {key}, which is not served: {NOT_SERVED[key].why}")
    wanted = config.get("minWorkers")
    if model.max_workers is not None and isinstance(wanted, int) and wanted > model.max_workers:
        # TorchServe would start them before anybody could take them away.
        raise _failed(
            model,
            f"it makes TorchServe start {wanted} workers (minWorkers in its configuration file), and its serving "
            f"settings allow {model.max_workers} (max_workers): pack it again without minWorkers, or allow as many",
        )


def unpacked_bytes(model: ServedModel) -> int | None:
    """Return what an archive takes unpacked, or None when it cannot be read. Blocks."""
    try:
        with zipfile.ZipFile(model.archive) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return None


def _configuration(model: ServedModel) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(model.archive) as archive:
            expanded = sum(each.file_size for each in archive.infolist())
            problem = expansion_problem(model.archive.stat().st_size, expanded)
            if problem is not None:
                raise _failed(model, f"it {problem}")
            name = json.loads(_read(archive, _MANIFEST))["model"].get("configFile")
            config = yaml.safe_load(_read(archive, name)) if name is not None else None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    except yaml.YAMLError as exc:
        raise _failed(model, f"its configuration file is no YAML: {clip(str(exc), 200)}") from exc
    return config if isinstance(config, dict) else {}


def _failed(model: ServedModel, why: str) -> LoadFailed:
    return about(model, LoadFailed(f"the archive of {model.name} {model.version} cannot be loaded: {why}"))


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(_FILE_BYTES_MAX)
