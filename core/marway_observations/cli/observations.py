"""`marway observations [MODEL]`: what was kept of predictions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from marway.errors import InvalidInput, clip
from marway.records import utc_now
from marway.registry import open_registry
from marway.serving import moment
from marway_observations.cli.options import ObservationsOption
from marway_observations.moments import CLOCKS, SINCE_OF_ID, since_of_id
from marway_ops.shell.options import JsonOption, RegistryOption, registry_url
from marway_ops.shell.output import print_found, print_result, warn, when

__all__ = ["observations"]

_LIMIT: Final = 20
_SINCE: Final = "24h"
_ANSWER_CHARS: Final = 60
_OUTCOMES: Final = ("ok", "client_error", "model_error", "unavailable", "timeout", "cancelled")
_COLUMNS: Final = ("at (UTC)", "prediction", "model", "version", "label", "outcome", "ms", "answer", "truth")


def observations(
    model: Annotated[str | None, typer.Argument(help="Model name; else those of all models.")] = None,
    version: Annotated[str | None, typer.Option(help="Only of this version.")] = None,
    label: Annotated[str | None, typer.Option(help="Only those that this label led to a version.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help=f"Ended since then: so long ago, or ISO 8601; {_SINCE}, with --id {SINCE_OF_ID}."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Ended before then; now.")] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Only this prediction, or this request's.")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this group.")] = None,
    outcome: Annotated[str | None, typer.Option(help=f"Only those that ended so: {', '.join(_OUTCOMES)}.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that ended in any other way than ok.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"At most so many, the newest; {_LIMIT}, and all with --export.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write them into this new file: .parquet, .jsonl or .csv, by its name."),
    ] = None,
    registry: RegistryOption = None,
    observations: ObservationsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was kept of predictions, newest first, with what feedback says of them; or write it into a file."""
    from marway_observations.listing import Wanted, newest
    from marway_observations.listing import export as export_to
    from marway_observations.reading import Observed
    from marway_observations.searching.searching import known_model
    from marway_observations.store import open_observations

    if outcome not in (None, *_OUTCOMES):
        raise InvalidInput(f"{clip(outcome or '', 40)!r} is no outcome: use one of {', '.join(_OUTCOMES)}")
    url, now = registry_url(registry), utc_now()
    store = open_observations(url, observations)
    name = None if model is None else known_model(open_registry(url), store, model)
    first = moment(since, now) if since is not None else moment(_SINCE, now) if id_ is None else since_of_id(id_, now)
    last = moment(until, now) if until is not None else now + CLOCKS
    wanted = Wanted(id=id_, group=group, version=version, label=label, outcome=outcome, failed=failed)
    with Observed(store, model=name, since=first, until=last) as observed:
        if export is not None:
            written = export_to(observed, wanted, export, limit=limit)
            rows = []
        else:
            rows = newest(observed, wanted, (limit or _LIMIT) + 1)
        for left in observed.left_out:
            warn(f"{left.key} cannot be read and was left out: {left.why}")
    span = f"between {when(first)} and {when(last)} UTC"
    if export is not None:
        print_result({"file": str(export), "rows": written}, f"{export}: {written} predictions {span}", as_json=as_json)
        return
    shown = rows[: limit or _LIMIT]
    print_found(
        [_document(row) for row in shown],
        _COLUMNS,
        (_row(row) for row in shown),
        as_json=as_json,
        none=f"nothing was kept {span}: a gateway writes what it keeps some seconds later",
    )
    if len(rows) > len(shown) and not as_json:
        typer.echo(f"… and older ones: --limit shows more than {len(shown)}, --export FILE has all", err=True)


def _document(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    feedback = [
        row["truth"],
        None if row["correct"] is None else "correct" if row["correct"] else "wrong",
        row["score"],
    ]
    ended = row["outcome"] if row["error"] is None else f"{row['outcome']}: {row['error']}"
    answer = f"({row['bodies']})" if row["output"] is None else clip(" ".join(row["output"].split()), _ANSWER_CHARS)
    return (
        when(row["at"]),
        row["prediction_id"],
        row["model"],
        row["version"],
        row["label"] or "-",
        ended,
        f"{row['duration_s'] * 1000:.1f}",
        answer,
        ", ".join(str(each) for each in feedback if each is not None) or "-",
    )
