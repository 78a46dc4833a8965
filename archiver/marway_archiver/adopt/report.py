"""What taking over a source came to, as one value and as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from marway.errors import InvalidInput
from marway.records import VersionRecord
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.adopt.pages.adopted import page_of
from marway_archiver.atomic_output import atomic_file

__all__ = ["REPORT_SUFFIXES", "Adopted", "Outcome", "Report", "check_report", "document_of", "write_report"]

Outcome = Literal["published", "known", "refused", "planned"]
"""A new version; one that was there with the same bytes; none, as `problem` says; what a dry run would publish."""
REPORT_SUFFIXES: Final = (".html", ".json", ".md")
"""How a report's file may be called."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of one version.

    Attributes:
        model: What was found.
        outcome: Whether it is published.
        record: What the registry has, where it is.
        repacked: Why its archive was written anew, as one phrase; None where it was taken as it is.
        labels: Labels that point at it now.
        messages: One sentence each on what may surprise.
        problem: Why it is not published, as one sentence.
    """

    model: FoundModel
    outcome: Outcome
    record: VersionRecord | None = None
    repacked: str | None = None
    labels: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What taking over a source came to.

    Attributes:
        found: What it holds.
        adopted: What became of each version, in the same order.
    """

    found: Found
    adopted: tuple[Adopted, ...]


def document_of(report: Report) -> dict[str, Any]:
    """Return a report as `--json` shows it."""
    found = report.found
    return {
        "source": found.source,
        "kind": found.kind,
        "notes": list(found.notes),
        "settings": [asdict(each) for each in found.settings],
        "models": [_model(each) for each in report.adopted],
    }


def _model(adopted: Adopted) -> dict[str, Any]:
    model = adopted.model
    return {
        "name": model.name,
        "version": model.version,
        "backend": model.backend,
        "archive": None if model.archive is None else str(model.archive),
        "directory": None if model.directory is None else str(model.directory),
        "endpoint": asdict(model.endpoint),
        "serving": model.serving.model_dump(mode="json", exclude_unset=True),
        "settings": [asdict(each) for each in model.settings],
        "outcome": adopted.outcome,
        "id": None if adopted.record is None else adopted.record.id,
        "sha256": None if adopted.record is None else adopted.record.archive.sha256,
        "repacked": adopted.repacked,
        "labels": list(adopted.labels),
        "warnings": [*model.warnings, *adopted.messages],
        "problem": adopted.problem,
    }


def check_report(path: Path) -> None:
    """Refuse the name of a report's file that no report is written to, before any work is done for it.

    Raises:
        InvalidInput: No report ends like that.
    """
    if path.suffix not in REPORT_SUFFIXES:
        raise InvalidInput(f"--report {path}: its name must end in {', '.join(REPORT_SUFFIXES)}")


def write_report(document: Mapping[str, Any], path: Path) -> None:
    """Write a report's document in the form that its file's name asks for; one that is there is replaced.

    Raises:
        InvalidInput: No report ends like that.
        InvalidArchive: It cannot be written.
    """
    check_report(path)
    if path.suffix == ".json":
        text = f"{json.dumps(document, indent=2, ensure_ascii=False)}\n"
    else:
        text = page_of(document, path.suffix)
    with atomic_file(path, force=True) as file:
        file.write(text.encode())
