"""`marway diff`: what differs between two versions or archives, and between their answers."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from marway.admin_client import AdminClient, token_of
from marway.answers.comparison import compare_stored
from marway.bundles import BUNDLE_SUFFIX, BundleManifest
from marway.errors import ArchiveCorrupt, InvalidArchive, InvalidRecord, clip
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.refs import parse_reference
from marway.registry import Registry, open_registry
from marway.text import printable
from marway.wire.comparison import Comparison, comparison_lines
from marway_archiver.archives import inspect_archive
from marway_archiver.bundles.checking import inspect_bundle, names_bundle
from marway_archiver.cli.output import human_bytes
from marway_ops.shell.options import (
    AdminOption,
    JsonOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_url,
    registry_url,
)
from marway_ops.shell.output import print_json, print_table

__all__ = ["diff"]

_EXPECTED = {"created_at", "format"}
"""Record fields that always differ, or never."""

_Files = dict[str, tuple[int, int]]
"""Files by their name, with size and CRC-32."""


@dataclass(frozen=True)
class _Side:
    """One of the two: what is known of it by field, and how its files are found once both sides are known to exist."""

    label: str
    facts: dict[str, Any]
    files: Callable[[], _Files]
    record: VersionRecord | None = None


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="MODEL/VERSION, MODEL/LABEL, an id, or a .mar or .bundle.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions or archives: record fields, files, sizes, and how B answers A's inputs.

    With a gateway one of its pods asks two published versions of one model; else published answers are compared.
    """
    first, second = (_of_file(Path(text)) if _is_file(text) else _of_version(text, registry) for text in (a, b))
    fields = _different_facts(first, second)
    files = _different_files(first.files(), second.files())
    url = admin_url(gateway, registry) if registry is None or gateway is not None else None
    client = AdminClient(url, token=token_of(token, token_file)) if url is not None else None
    comparison = _compared(first, second, registry, client)
    if as_json:
        answers = comparison.model_dump(mode="json")
        print_json({"a": first.label, "b": second.label, "record": fields, "files": files, "answers": answers})
        return
    if not fields and not files:
        typer.echo(f"{a} and {b} do not differ")
    if fields:
        print_table(
            ("field", a, b), [(each["field"], clip(_text(each["a"])), clip(_text(each["b"]))) for each in fields]
        )
    if files:
        rows = [(each["name"], each["change"], _size(each["a_bytes"]), _size(each["b_bytes"])) for each in files]
        print_table(("file", "change", a, b), rows)
    if fields or files:
        typer.echo(printable("\n".join(comparison_lines(comparison))))


def _compared(first: _Side, second: _Side, registry: str | None, gateway: AdminClient | None) -> Comparison:
    """Return how the second answers the golden inputs of the first."""
    base, record = first.record, second.record
    nothing = Comparison(version=second.label, base=first.label, method="stored")
    if base is None or record is None or base.name != record.name:
        return nothing.model_copy(update={"not_compared": "only published versions of one model are compared"})
    if base.version == record.version:
        return nothing.model_copy(update={"not_compared": "it is one and the same version"})
    if gateway is not None:
        return gateway.compare(record.name, record.version, base.version)
    try:
        return compare_stored(open_registry(registry_url(registry)), record, base)
    except InvalidRecord as exc:
        return nothing.model_copy(update={"not_compared": exc.message})


def _is_file(text: str) -> bool:
    return text.endswith((".mar", BUNDLE_SUFFIX)) or Path(text).is_file()


def _of_file(path: Path) -> _Side:
    info = inspect_bundle(path) if names_bundle(path) else inspect_archive(path)
    if info.manifest is None:
        raise InvalidArchive(f"{path}: {info.problems[0]}")
    name, version = info.model
    facts = {
        "name": name,
        "version": version,
        "archive.sha256": info.sha256 or None,
        "archive.size_bytes": info.size_bytes,
    }
    if isinstance(info.manifest, BundleManifest):
        facts |= {"archive.kind": "bundle", "backend": info.manifest.backend}
    else:
        facts |= {"archive.kind": "mar", "handler": info.manifest.model.handler}
    return _Side(str(path), facts, lambda: {each.name: (each.size, each.crc32) for each in info.files})


def _of_version(text: str, registry: str | None) -> _Side:
    reference = parse_reference(text)
    found = open_registry(registry_url(registry))
    record = found.resolve(reference)
    return _Side(f"{record.name}/{record.version}", _facts(record), partial(_files, found, record), record)


def _facts(record: VersionRecord) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, value in record.model_dump(mode="json").items():
        if name in _EXPECTED:
            continue
        if isinstance(value, dict):
            features = value.pop("features", {}) if name == "training" else {}  # a line each, for those that differ
            facts |= {f"{name}.{key}": each for key, each in value.items()}
            facts |= {f"training.features.{key}": each for key, each in features.items()}
        else:
            facts[name] = value
    return facts


def _files(found: Registry, record: VersionRecord) -> _Files:
    # Published archives were read from end to end: their directory says what is in them, and is all that is fetched.
    try:
        with found.open_archive(record.archive) as handle, zipfile.ZipFile(handle) as archive:
            return {each.filename: (each.file_size, each.CRC) for each in archive.infolist()}
    except ObjectMissing as exc:
        raise ArchiveCorrupt(
            f"{found.url} has no archive for {record.name} {record.version}: publish the version again"
        ) from exc
    except zipfile.BadZipFile as exc:
        raise ArchiveCorrupt(f"the archive of {record.name} {record.version} cannot be read: {exc}") from exc


def _different_facts(first: _Side, second: _Side) -> list[dict[str, Any]]:
    names = dict.fromkeys([*first.facts, *second.facts])
    if first.record is None or second.record is None:
        # A file tells little of itself: only what both sides know is compared.
        names = {name: None for name in names if name in first.facts and name in second.facts}
    pairs = ((name, first.facts.get(name), second.facts.get(name)) for name in names)
    return [{"field": name, "a": one, "b": other} for name, one, other in pairs if one != other]


def _different_files(first: _Files, second: _Files) -> list[dict[str, Any]]:
    found = []
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if one == other:
            continue
        change = "added" if one is None else "removed" if other is None else "changed"
        found.append({"name": name, "change": change, "a_bytes": one and one[0], "b_bytes": other and other[0]})
    return found


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _size(size: int | None) -> str:
    return "-" if size is None else human_bytes(size)
