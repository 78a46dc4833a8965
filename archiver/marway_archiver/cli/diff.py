"""`marway diff`: what differs between two versions or archives, and between their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from marway.admin_client import AdminClient, token_of
from marway.answers.comparison import compare_stored
from marway.bundles import BUNDLE_SUFFIX, BundleManifest
from marway.errors import InvalidArchive, InvalidRecord, clip
from marway.records import VersionRecord
from marway.refs import parse_reference
from marway.registry import open_registry
from marway.text import printable
from marway.versions.contents import files_of
from marway.versions.differences import Files, different_facts, different_files, facts_of
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


@dataclass(frozen=True)
class _Side:
    """One of the two: what is known of it by field, and how its files are found once both sides are known to exist."""

    label: str
    facts: dict[str, Any]
    files: Callable[[], Files]
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
    # A file tells little of itself: then only what both sides know is compared.
    facts_of_both = first.record is None or second.record is None
    fields = different_facts(first.facts, second.facts, both=facts_of_both)
    files = different_files(first.files(), second.files())
    url = admin_url(gateway, registry) if registry is None or gateway is not None else None
    client = AdminClient(url, token=token_of(token, token_file)) if url is not None else None
    comparison = _compared(first, second, registry, client)
    if as_json:
        answers = comparison.model_dump(mode="json")
        record, changed = ([each.model_dump(mode="json") for each in found] for found in (fields, files))
        print_json({"a": first.label, "b": second.label, "record": record, "files": changed, "answers": answers})
        return
    if not fields and not files:
        typer.echo(f"{a} and {b} do not differ")
    if fields:
        print_table(("field", a, b), [(each.field, clip(_text(each.a)), clip(_text(each.b))) for each in fields])
    if files:
        rows = [(each.name, each.change, _size(each.a_bytes), _size(each.b_bytes)) for each in files]
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

    def files() -> Files:
        return {each.name: (each.size, each.crc32) for each in files_of(found, record)}

    return _Side(f"{record.name}/{record.version}", facts_of(record), files, record)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _size(size: int | None) -> str:
    return "-" if size is None else human_bytes(size)
