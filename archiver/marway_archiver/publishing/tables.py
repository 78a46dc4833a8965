"""Publishes tables: sorted by key, packed as a bundle and stored."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marway.errors import InvalidInput
from marway.graphs import TABLE_BACKEND
from marway.records import VersionRecord
from marway.refs import check_model_name, check_version
from marway.registry import Registry
from marway_archiver.packing import StrPath
from marway_archiver.progress import Progress
from marway_archiver.publishing.bundles import publish_bundle

__all__ = ["publish_table"]


def publish_table(
    source: StrPath,
    *,
    model_name: str,
    version: str,
    key: str,
    registry: str | Registry,
    create_registry: bool = False,
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    note: str | None = None,
    gateway: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> VersionRecord:
    """Publish the rows of a Parquet or Arrow file as a version of a table, for nodes of kind lookup in graphs.

    Args:
        source: A Parquet file, or an Arrow IPC file or stream. All rows are held in memory while they are sorted.
        model_name: The table's name; see `marway.refs`.
        version: It never changes once published: new rows are a new version.
        key: The column that rows are found by: whole numbers or text, each once.
        registry: As `publish` takes it, like what is not explained here.
        create_registry: Make the registry if there is none yet.
        label: Point this label at the version afterwards.
        record: Facts about the version.
        note: Why, for the label's history.
        gateway: URL of a gateway's admin port, which opens the table before the label moves.
        force: Move the label without a proof.
        progress: Told about bytes packed and stored, as one.

    Raises:
        InvalidInput: The file is no table with such a key, or pyarrow is not installed; the message says what is wrong.
        MarwayError: As `publish`.
    """
    check_model_name(model_name)
    check_version(version)
    try:
        from marway_archiver.tables.making import make_table
    except ModuleNotFoundError as exc:
        raise InvalidInput(
            "reading Parquet and Arrow needs the package 'pyarrow': pip install 'marway[observations]'"
        ) from exc
    with tempfile.TemporaryDirectory(prefix="marway-table-") as directory:
        make_table(Path(source), Path(directory), key=key, model_name=model_name, version=version)
        return publish_bundle(
            model_name=model_name,
            version=version,
            backend=TABLE_BACKEND,
            directory=directory,
            registry=registry,
            create_registry=create_registry,
            label=label,
            record=record,
            note=note,
            gateway=gateway,
            force=force,
            progress=progress,
        )
