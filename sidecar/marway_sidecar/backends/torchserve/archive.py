"""What the archive of a version asks of TorchServe, looked at before TorchServe is told of it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from marway.archives.rules import Calling, calling_of, expansion_problem, setting_problem
from marway.archives.sequences import SEQUENCE_KEYS
from marway.errors import LoadFailed, clip
from marway.worker.sequences import ORIGINAL
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.errors import about

__all__ = ["Asked", "asked_by", "checked", "unpacked_bytes", "without_sequences"]

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_FILE_BYTES_MAX: Final = 1024 * 1024
_TIMEOUT_S: Final = 120
"""TorchServe's time for a call of an archive with a configuration file that does not say it."""
_NOT_FOR_TORCHSERVE: Final = frozenset({"batchSize", "maxBatchDelay", "maxWorkers", "minWorkers", "sequenceBatching"})


class Asked(NamedTuple):
    """What an archive's configuration file asks for.

    Attributes:
        calling: How its handler is called.
        answer_within_s: How long one call may take; None where there is no file, and the register call says it.
    """

    calling: Calling
    answer_within_s: float | None


def checked(model: ServedModel, *, enveloped: bool) -> Asked:
    """Return what an archive asks for, if it can be served. Blocks.

    TorchServe obeys an archive's own configuration over what the register call says, and takes settings that make every
    prediction fail. `publish` refuses such archives, but the registry may hold one that something else wrote. One that
    cannot be read is left to TorchServe, which says what is wrong with it. Without our workers (``enveloped``) there
    is one call at a time: TorchServe's own fail all that are under way where one raises.

    Raises:
        LoadFailed: It is a bomb, asks for more workers than the version may have, or for what is not served.
    """
    config = _configuration(model)
    problem = setting_problem(config, sequences=model.sequences)
    if problem is not None:
        raise _failed(model, problem)
    calling = calling_of(config)
    if (calling.way != "one" or model.sequences) and not enveloped:
        name = {"async": "asyncCommunication", "continuous": "continuousBatching"}.get(calling.way, "sequenceBatching")
        why = "is served by workers of Marway's runtime, and this TorchServe was started otherwise"
        raise _failed(model, f"its configuration file says {name}, which {why}")
    if calling.way == "continuous" and model.workers > 1:
        # A worker without a row waits for one under a lock that those with rows need, too.
        raise _failed(
            model,
            f"it says continuousBatching, and its serving settings ask for {model.workers} workers (min_workers): with "
            "several, TorchServe 0.12 stops answering; ask for one, or serve it with the native engine",
        )
    wanted = None if model.sequences else config.get("minWorkers")
    if model.max_workers is not None and isinstance(wanted, int) and wanted > model.max_workers:
        # TorchServe would start them before anybody could take them away.
        raise _failed(
            model,
            f"it makes TorchServe start {wanted} workers (minWorkers in its configuration file), and its serving "
            f"settings allow {model.max_workers} (max_workers): pack it again without minWorkers, or allow as many",
        )
    return _asked(config)


@contextmanager
def without_sequences(model: ServedModel) -> Iterator[ServedModel]:
    """Yield a version that keeps sequences with an archive that TorchServe is to be given; others as they are. Blocks.

    TorchServe's own batches of sequences begin a sequence anew without a word when it was idle or lost its worker, wait
    100 ms for each to fill, and take no call that names no sequence. So it is not told: its copy of the archive, gone
    once it has unpacked it, says nothing of them and of workers, and the handler finds what the archive says all the
    same (`marway.worker.sequences`).

    Raises:
        LoadFailed: The copy cannot be written.
    """
    if not model.sequences:
        yield model
        return
    copy = model.archive.with_name(f"sequences-{model.server_name}.mar")
    try:
        try:
            _copy_without(model, copy)
        except (OSError, zipfile.BadZipFile, KeyError, ValueError) as exc:
            raise _failed(model, f"no copy without its sequences can be made for TorchServe: {exc}") from exc
        yield replace(model, archive=copy)
    finally:
        copy.unlink(missing_ok=True)


def _copy_without(model: ServedModel, copy: Path) -> None:
    """Write an archive without what it says of sequences: its bytes, with the configuration file once more behind them.

    Who reads it from its beginning, as TorchServe does, lets the last file of a name count; who reads its index finds
    that alone.
    """
    config = dict(_configuration(model))
    left = {key: value for key, value in config.items() if key not in (_NOT_FOR_TORCHSERVE | SEQUENCE_KEYS.keys())}
    shutil.copyfile(model.archive, copy)
    with zipfile.ZipFile(copy, "a") as archive:
        name = json.loads(_read(archive, _MANIFEST))["model"]["configFile"]
        before = archive.NameToInfo.pop(name)
        archive.filelist.remove(before)
        archive.writestr(name, json.dumps({**left, ORIGINAL: config}))  # which is YAML, too


def asked_by(model: ServedModel) -> Asked:
    """Return what an archive that the server has asks for. Blocks."""
    return _asked(_configuration(model))


def _asked(config: Mapping[str, Any]) -> Asked:
    within = config.get("responseTimeout", _TIMEOUT_S)
    return Asked(calling_of(config), float(within) if config and isinstance(within, int | float) else None)


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
