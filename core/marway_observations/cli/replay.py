"""`marway replay MODEL --candidate V`: what a version would have answered to inputs that callers have sent before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import jmespath
import typer
from jmespath.exceptions import JMESPathError
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from marway.admin_client import token_of
from marway.errors import InvalidInput, clip
from marway.process.identity import this_user
from marway.proofs.replays import REPLAY_LIMITS, Replay, ReplayCounts
from marway.records import Proof, VersionRecord, utc_now
from marway.refs import DEFAULT_LABEL, Reference, check_label
from marway.registry import Registry, open_registry
from marway.serving import moment
from marway_observations.cli.options import ObservationsOption
from marway_ops.shell.options import (
    GatewayOption,
    JsonOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    gateway_url,
    registry_url,
)
from marway_ops.shell.output import console, print_json, print_table, warn

if TYPE_CHECKING:
    from marway_observations.replay import Progress

__all__ = ["replay"]

_LAST: Final = 1000
_SINCE: Final = "7d"
_FIELDS: Final = 10


def replay(
    model: Annotated[str, typer.Argument(help="Model name.")],
    candidate: Annotated[str, typer.Option(help="The version that is tried.")],
    base: Annotated[
        str | None, typer.Option(help="The version it is compared with; else the one that the label points at.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help=f"Whose callers' inputs are sent: this label's, {DEFAULT_LABEL}'s, or with --base its own."),
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=1, help=f"At most so many inputs, the newest; {_LAST}, and all with --since.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"Of predictions that ended since then: so long ago, or ISO 8601; {_SINCE}."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="At most so many inputs a second; else as fast as there is room beside callers."),
    ] = None,
    segment: Annotated[
        str | None,
        typer.Option(metavar="JMESPATH", help="Also count by this, below `input` and `output`: such as input.country."),
    ] = None,
    guards: Annotated[
        str | None,
        typer.Option(
            metavar="GUARD[=PART],…",
            help="What is judged, and in which part of the inputs the candidate may do worse: "
            + ",".join(f"{name}={limit:g}" for name, limit in REPLAY_LIMITS.items()),
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Deadline of each request, seconds; a version may be loaded within it.")
    ] = 60.0,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Keep what came of it as a proof of the candidate.")
    ] = True,
    registry: RegistryOption = None,
    observations: ObservationsOption = None,
    gateway: GatewayOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send kept inputs of callers to two versions, at the lowest priority, and show how their answers differ.

    Exit status 1 means that the candidate did worse than the limits allow, or that not all inputs were sent.
    """
    from marway_observations.replay import Replaying, Wanted, choose
    from marway_observations.store import open_observations

    now, url = utc_now(), registry_url(registry)
    limits = _limits(guards)
    if segment is not None:
        _check_path(segment)
    known = open_registry(url)
    name = known.find(model)
    of_label = check_label(label) if label is not None else DEFAULT_LABEL if base is None else None
    before, after = _versions(known, name, base=base, label=of_label, candidate=candidate)
    first = moment(since or _SINCE, now)
    wanted = Wanted(
        name,
        first,
        now,
        last=last if last is not None or since is not None else _LAST,
        label=of_label,
        version=before.version if of_label is None else None,
    )
    wished = Replaying(
        known,
        before,
        after,
        gateway_url(gateway),
        token=token_of(token, token_file),
        label=of_label,
        rate=rate,
        segment=segment,
        limits=limits,
        timeout_s=timeout,
    )
    with choose(open_observations(url, observations), wanted) as inputs:
        for left in inputs.left_out:
            warn(f"{left.key} cannot be read and was left out: {left.why}")
        with _bar() as progress:
            done = wished.run(inputs, progress=progress)
    if as_json:
        print_json({**done.model_dump(mode="json"), "passed": done.passed})
    else:
        _print(done)
    if store and done.broken_off is None and done.counts.compared:
        known.prove(_proof(done, after))
    elif store:
        warn("nothing of it is kept as a proof, for it did not come to its end: run it again")
    if not done.passed:
        raise typer.Exit(1)


def _versions(
    registry: Registry, name: str, *, base: str | None, label: str | None, candidate: str
) -> tuple[VersionRecord, VersionRecord]:
    """Return the records of base and candidate."""
    before = registry.resolve(Reference(name, base or label))
    after = registry.resolve(Reference(name, candidate))
    if before.version == after.version:
        where = "" if base is not None else f", where {label} is: give --base"
        raise InvalidInput(f"{name} {after.version} would be compared with itself{where}")
    return before, after


def _proof(done: Replay, record: VersionRecord) -> Proof:
    return Proof(
        kind="replay",
        archive_sha256=record.archive.sha256,
        server="gateway",
        duration_s=done.duration_s,
        at=utc_now(),
        by=this_user(),
        replay=done.stored(),
    )


def _limits(text: str | None) -> Mapping[str, float]:
    """Return the limits that `errors,disagreement=0.05` stands for, each a part from 0 to 1."""
    if text is None:
        return REPLAY_LIMITS
    found = {}
    for each in text.split(","):
        guard, given, value = each.strip().partition("=")
        if guard not in REPLAY_LIMITS:
            raise InvalidInput(f"{clip(guard, 40)!r} is no guard of a replay: there are {', '.join(REPLAY_LIMITS)}")
        try:
            found[guard] = float(value) if given else REPLAY_LIMITS[guard]
        except ValueError:
            found[guard] = -1.0
        if not 0 <= found[guard] <= 1:
            raise InvalidInput(f"{clip(each, 60)!r}: give a part of the inputs from 0 to 1, such as {guard}=0.05")
    return found


def _check_path(text: str) -> None:
    try:
        jmespath.compile(text)
    except JMESPathError as exc:
        raise InvalidInput(
            f"{clip(text, 80)!r} is no JMESPath, such as input.country or output.label: "
            f"{clip(' '.join(str(exc).split()), 200)}"
        ) from exc


@contextmanager
def _bar() -> Iterator[Progress]:
    """Give a progress callback that draws a bar on a terminal."""
    shown_on = console(stderr=True)
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[differ]} differ"))
    with Bar(
        *columns, TimeRemainingColumn(), console=shown_on, transient=True, disable=not shown_on.is_terminal
    ) as bar:
        task = bar.add_task("replay", total=None, differ=0)
        yield lambda done, total, differ: bar.update(task, completed=done, total=total, differ=differ)


def _print(done: Replay) -> None:
    counts = done.counts
    whose = f"callers of {done.label}" if done.label is not None else f"callers that {done.base} answered"
    typer.echo(
        f"{done.model}: {counts.compared} of {done.inputs} inputs of {whose} "
        f"({done.since:%Y-%m-%d %H:%M} to {done.until:%Y-%m-%d %H:%M} UTC), to {done.base} and to {done.candidate}"
    )
    print_table(("", done.base, done.candidate), _facts(done))
    if done.fields:
        # Those that are not within others first: a label before the scores of a hundred classes.
        outer = sorted(done.fields.items(), key=lambda each: (each[0].count(".") + each[0].count("["), -each[1]))
        print_table(
            ("field", "differs for", "of all"),
            [
                (name or "(the answer)", str(number), f"{number / counts.compared:.1%}")
                for name, number in outer[:_FIELDS]
            ],
        )
    if done.segment is not None:
        print_table(
            (done.segment, "inputs", "decide the same", "candidate fails", "other shape"),
            [(each.value or "-", *_segment(each.counts)) for each in done.segments],
        )
        if all(each.value is None for each in done.segments):
            warn(f"{done.segment} found nothing in any input: fields of inputs are below `input`, of answers `output`")
    if done.slowest:
        print_table(
            ("slowest", f"{done.base}, ms", f"{done.candidate}, ms"),
            [(each.prediction_id, _ms(each.base_s), _ms(each.candidate_s)) for each in done.slowest[:3]],
        )
    if done.examples:
        print_table(
            ("example", "what", "how"),
            [(each.prediction_id, each.kind, each.difference or "") for each in done.examples],
        )
    for why, number in done.skipped.items():
        typer.echo(f"{number} not compared: {why}")
    if done.redacted:
        typer.echo(f"what is kept lacks these, so the versions were asked without them: {', '.join(done.redacted)}")
    _verdict(done)


def _verdict(done: Replay) -> None:
    for breach in done.breaches:
        typer.echo(f"WORSE  {breach}")
    if done.broken_off is not None:
        typer.echo(f"BROKEN OFF after {done.counts.compared} of {done.inputs} inputs: {done.broken_off}")
    elif not done.counts.compared:
        typer.echo("nothing could be compared")
    elif not done.breaches:
        typer.echo(f"within all limits: {', '.join(f'{name} {limit:g}' for name, limit in done.limits.items())}")


def _facts(done: Replay) -> list[tuple[str, str, str]]:
    """Return what is told of both versions, a row for each thing."""
    counts = done.counts
    both = counts.both_failed
    rows = [
        ("decide the same", "", _part(counts.agree, counts.compared)),
        ("equal", "", _part(counts.equal, counts.compared)),
        ("fail", str(counts.base_failed + both), str(counts.failed + both)),
        ("fail where the other does not", str(counts.base_failed), str(counts.failed)),
        ("not finite where the other is", str(counts.base_nonfinite), str(counts.nonfinite)),
        ("other fields or types", "", str(counts.shape)),
    ]
    if done.sides:
        base, candidate = done.sides
        rows.append(("p50 of the model, ms", _ms(base.p50_s), _ms(candidate.p50_s)))
        rows.append(("p99 of the model, ms", _ms(base.p99_s), _ms(candidate.p99_s)))
    return rows


def _segment(counts: ReplayCounts) -> tuple[str, ...]:
    return str(counts.compared), _part(counts.agree, counts.compared), str(counts.failed), str(counts.shape)


def _part(number: int, of: int) -> str:
    return f"{number} ({number / of:.1%})" if of else str(number)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"
