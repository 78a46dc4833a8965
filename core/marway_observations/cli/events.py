"""`marway events`: what happened to models, and what webhooks were not sent."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Final

import typer

from marway.errors import InvalidInput, ModelNotFound, NotFound, clip
from marway.records import utc_now
from marway.registry import Registry
from marway.serving import moment
from marway.text import did_you_mean, printable, printable_json
from marway_observations.events import Event, EventLog
from marway_observations.events.event import TYPES, is_type
from marway_observations.events.outbox import Dead, Outbox, Pending
from marway_ops.shell.options import JsonOption, LimitOption, RegistryOption, opened_registry
from marway_ops.shell.output import print_found, print_result, when

__all__ = ["events"]

_RETRY: Final = "retry"
_FOLLOW_INTERVAL_S: Final = 2.0
_AHEAD: Final = timedelta(days=1)
"""Clocks of those that make changes may be ahead of ours."""
_COLUMNS: Final = ("at (UTC)", "model", "what", "details", "id")
_DEAD_COLUMNS: Final = ("id", "webhook", "given up (UTC)", "attempts", "the last one", "model", "what")
_PENDING_COLUMNS: Final = ("id", "webhook", "attempts", "the last one", "next (UTC)", "model", "what")
_SHOWN: Final = ("label", "version", "previous_version", "by", "note")
_TOLD_ELSEWHERE: Final = ("model", "generation")


def events(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL | retry]", help="Only events of this model; or send dead ones."),
    ] = None,
    event: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Behind `retry`: the dead event that is sent again.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="The oldest: so long ago, such as 24h or 7d, or a time in ISO 8601.")
    ] = "7d",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--type", help="Only this type, such as released or dev.marway.model.quality_*; may be given several times."
        ),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Show those that were given up for a webhook.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Show those that webhooks do not have yet.")] = False,
    every: Annotated[bool, typer.Option("--all", help="With retry: send every dead event again.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come, until Ctrl-C.")] = False,
    limit: LimitOption = 100,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what happened to models, newest first; `events retry ID`, or `--all`, sends again what webhooks missed."""
    found = opened_registry(registry)
    if model == _RETRY and (event is not None or every):
        _retry(Outbox(found.store), event, every=every, as_json=as_json)
        return
    if event is not None or every:
        raise typer.BadParameter("an event's ID and --all go with retry: `marway events retry ID`")
    if dead + pending + follow > 1:
        raise typer.BadParameter("give one of --dead, --pending and --follow: each shows another list")
    oldest, types = moment(since, utc_now()), _types(kind or ())
    if model is not None:
        model = _name(found, model)
    if dead or pending:
        show = _show_dead if dead else _show_pending
        show(Outbox(found.store), model, oldest, types, limit=limit, as_json=as_json)
        return
    log = EventLog(found.store)
    if follow:
        seen = set(log.keys())  # before what is shown: what comes in between is shown rather twice than never
    wanted = log.newest_first(since=oldest, until=utc_now() + _AHEAD, model=model, types=types)
    shown = list(itertools.islice(wanted, limit))
    if follow:
        _follow(log, seen, shown[::-1], model, types, as_json=as_json)
    print_found(
        [_document(each) for each in shown],
        _COLUMNS,
        (_row(each) for each in shown),
        as_json=as_json,
        none=f"nothing happened since {when(oldest)} UTC",
    )
    if not as_json and next(wanted, None) is not None:
        typer.echo(f"… and older ones: --limit shows more than {limit}", err=True)


def _follow(
    log: EventLog, seen: set[str], shown: list[Event], model: str | None, types: Collection[str], *, as_json: bool
) -> None:
    for each in shown:
        _print_line(each, as_json=as_json)
    while True:
        time.sleep(_FOLLOW_INTERVAL_S)
        new = [key for key in log.keys() if key not in seen]  # noqa: SIM118  # not a mapping's
        seen.update(new)
        came = [event for key in new if (event := log.get(key)) is not None and event.matches(model=model, types=types)]
        for each in sorted(came, key=lambda event: event.time):
            _print_line(each, as_json=as_json)


def _print_line(event: Event, *, as_json: bool) -> None:
    if as_json:
        typer.echo(printable_json(json.dumps(_document(event), ensure_ascii=False)))
        return
    at, *rest = _row(event)
    typer.echo("  ".join((at, *(printable(cell) for cell in rest))))


def _show_dead(
    outbox: Outbox, model: str | None, since: datetime, types: Collection[str], *, limit: int, as_json: bool
) -> None:
    given_up = (each for each in outbox.dead() if each.at >= since)
    matching = (each for each in given_up if each.event.matches(model=model, types=types))
    wanted = sorted(matching, key=lambda each: each.at, reverse=True)
    print_found(
        [each.model_dump(mode="json") for each in wanted[:limit]],
        _DEAD_COLUMNS,
        (_dead_row(each) for each in wanted[:limit]),
        as_json=as_json,
        none=f"no event was given up for a webhook since {when(since)} UTC",
    )
    if not as_json and len(wanted) > limit:
        typer.echo(f"… and older ones: --limit shows more than {limit}", err=True)


def _show_pending(
    outbox: Outbox, model: str | None, since: datetime, types: Collection[str], *, limit: int, as_json: bool
) -> None:
    found = (waiting[0] for event_id in outbox.pending() if (waiting := outbox.get(event_id)) is not None)
    matching = (each for each in found if each.event.time >= since and each.event.matches(model=model, types=types))
    wanted = sorted(matching, key=lambda each: each.event.time, reverse=True)
    print_found(
        [each.model_dump(mode="json") for each in wanted[:limit]],
        _PENDING_COLUMNS,
        (row for each in wanted[:limit] for row in _pending_rows(each)),
        as_json=as_json,
        none="every webhook has its events",
    )
    if not as_json and len(wanted) > limit:
        typer.echo(f"… and older ones: --limit shows more than {limit}", err=True)


def _retry(outbox: Outbox, event: str | None, *, every: bool, as_json: bool) -> None:
    if event is not None and every:
        raise typer.BadParameter("give an event's ID or --all, not both")
    dead = [each for each in outbox.dead() if every or each.event.id == event]
    if not dead and event is not None:
        known = sorted({each.event.id for each in outbox.dead()})
        meant = did_you_mean(event, known)
        raise NotFound(
            f"event {clip(event, 80)!r} was not given up: `marway events --dead` shows those that were{meant}"
        )
    for each in dead:
        outbox.retry(each)
    names = [{"id": each.event.id, "webhook": each.webhook} for each in dead]
    sent = ", ".join(f"{each['id']} to {each['webhook']}" for each in names)
    print_result(
        names, f"sent again by the gateways within seconds: {sent or 'nothing, as none is dead'}", as_json=as_json
    )


def _name(found: Registry, model: str) -> str:
    """Return a model's name as it is written; of one whose versions are all deleted as well."""
    try:
        return found.find(model)
    except ModelNotFound as exc:
        if model == _RETRY:
            raise InvalidInput(
                "which event is sent again? give its ID, as `marway events --dead` shows it, or --all"
            ) from exc
        raise


def _types(given: Collection[str]) -> tuple[str, ...]:
    """Return types as they are written, from those and their last words.

    Raises:
        InvalidInput: No event is of such a type.
    """
    found: list[str] = []
    for text in given:
        short = [each for each in TYPES if each.rpartition(".")[2] == text]
        if not short and not any(is_type(each, text) for each in TYPES):
            words = ", ".join(each.rpartition(".")[2] for each in TYPES)
            raise InvalidInput(f"no event is of type {clip(text, 80)!r}: there are {words}{did_you_mean(text, TYPES)}")
        found += short or [text]
    return tuple(found)


def _document(event: Event) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(event.encoded())
    return document


def _row(event: Event) -> tuple[str, ...]:
    at = when(event.time.astimezone(timezone.utc))
    return at, event.subject, _what(event), ", ".join(_details(event)), event.id


def _pending_rows(pending: Pending) -> Iterator[tuple[str, ...]]:
    """Yield a row for each webhook that it was tried for and that does not have it; one where none was tried yet."""
    facts = (pending.event.subject, _what(pending.event))
    tried = {name: each for name, each in pending.webhooks.items() if not each.done}
    for name, each in tried.items():
        again = "" if each.next_at is None else when(each.next_at.astimezone(timezone.utc))
        yield pending.event.id, name, str(each.count), each.error or "", again, *facts
    if not tried:
        yield pending.event.id, ", ".join(pending.only) or "all that want it", "0", "", "at once", *facts


def _dead_row(dead: Dead) -> tuple[str, ...]:
    return (
        dead.event.id,
        dead.webhook,
        when(dead.at.astimezone(timezone.utc)),
        str(dead.attempts.count),
        dead.attempts.error or "",
        dead.event.subject,
        _what(dead.event),
    )


def _what(event: Event) -> str:
    of, _, what = event.type.removeprefix("dev.marway.").rpartition(".")
    words = what.replace("_", " ")
    return words if of == "model" else f"{of} {words}"


def _details(event: Event) -> Iterator[str]:
    """Yield what programs want to know of an event, as `name: value`, that which everybody wants first."""
    data = event.data
    rest = (name for name in data if name not in _SHOWN and name not in _TOLD_ELSEWHERE)
    for name in (*(each for each in _SHOWN if each in data), *rest):
        value = data[name]
        if value is None or value is False or isinstance(value, dict):
            continue
        if name == "reason" and value == data.get("note"):
            continue
        if isinstance(value, list):  # of fields that drift, each with its figures
            value = ", ".join(str(each.get("field", "…") if isinstance(each, dict) else each) for each in value)
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        yield name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {clip(text, 80)}"
