"""What `marway adopt` asks an old server and Marway, and how they compare."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from marway.admin_client import AdminClient, token_of
from marway.answers.golden import DEFAULT_TOLERANCE, Tolerance
from marway.errors import InvalidInput, MarwayError, clip
from marway.text import printable
from marway.wire.headers import REQUEST_TIMEOUT_MS
from marway_archiver.adopt.comparing.asked import Asked, asked
from marway_archiver.adopt.comparing.calling import Server, server_url
from marway_archiver.adopt.comparing.comparing import Comparison, Rounds, compare
from marway_archiver.adopt.comparing.documents import compared_document
from marway_archiver.adopt.comparing.tally import ComparedModel
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.cli.engines import shown_steps
from marway_ops.engines.cluster import with_cluster
from marway_ops.engines.trial import planned
from marway_ops.shell.output import print_table, warn
from marway_ops.up.plan import PlannedPod, named_engines

__all__ = ["Wanted", "asked_of", "compared", "differs", "document", "print_compared", "wanted"]

_LOAD_S: Final = 600
"""How long Marway may take for an answer: the first one waits until its version is loaded."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be asked of whom, checked.

    Attributes:
        file: Of requests.
        old: The old server, if it still runs.
        gateway: Marway's, where it runs already; None starts one.
        plan: The pods to start, where there is none.
        most: Golden examples of a version at most.
        compare: Whether Marway is asked at all.
        rounds: How often times are measured.
        tolerance: How far numbers may lie apart.
    """

    file: Path | None
    old: Server | None
    gateway: str | None
    plan: tuple[PlannedPod, ...]
    most: int
    compare: bool
    rounds: Rounds
    tolerance: Tolerance


def wanted(
    found: Found,
    *,
    file: Path | None,
    old: str | None,
    headers: Sequence[str],
    gateway: str | None,
    engine: str | None,
    most: int,
    compare: bool,
    once: bool,
    tolerance: float | None,
    timeout_s: float,
) -> Wanted | None:
    """Return what the flags ask for, None where nothing is to be asked.

    Raises:
        InvalidInput: They do not go together, or one is none.
        InvalidSettings, ModuleNotFoundError: Pods cannot be started for it.
    """
    if file is None and old is None:
        for flag, given in (("--compare-with", gateway), ("--from-header", headers or None)):
            if given is not None:
                raise InvalidInput(f"{flag} needs --from URL, the old server, or --requests FILE with its answers")
        return None
    if engine is not None:
        named_engines(engine)
    server = Server(server_url(old, flag="--from"), timeout_s, _headers(headers)) if old is not None else None
    url = server_url(gateway, flag="--compare-with") if gateway is not None else None
    plan = planned(_engines(found, engine)) if compare and url is None else ()
    within = DEFAULT_TOLERANCE if tolerance is None else Tolerance(relative=tolerance, absolute=tolerance)
    return Wanted(file, server, url, plan, most, compare, Rounds(once=once), within)


def asked_of(want: Wanted, found: Found) -> Asked:
    """Read the requests, and have the old server answer those that become golden examples."""
    with shown_steps() as step:
        return asked(found, want.file, want.old, most=want.most, step=step)


def compared(want: Wanted, asked: Asked, registry: str) -> tuple[Comparison, dict[str, str]]:
    """Send the requests to the old server and to Marway, which is started for it unless it runs.

    Pods that are started prove the versions first, which the registry keeps: then labels may move to them.

    Returns:
        What came of it; and by `NAME/VERSION` what a pod said of its golden answers.
    """
    token = token_of(None, None)
    headers = {REQUEST_TIMEOUT_MS: str(_LOAD_S * 1000)}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    proofs: dict[str, str] = {}

    def ask(gateway: str, stopped: threading.Event) -> Comparison:
        new = Server(gateway, _LOAD_S + 10.0, headers)
        new.check_there()
        step("asking the old server and Marway in turns")
        try:
            return compare(
                asked.models,
                asked.unknown,
                new,
                old=asked.old,
                tolerance=want.tolerance,
                rounds=want.rounds,
                stopped=stopped,
                progress=lambda done, total: step(f"asking the old server and Marway: {done} of {total} requests"),
            )
        finally:
            new.close()

    def prove_and_ask(gateway: str, admin: str, stopped: threading.Event) -> Comparison:
        client = AdminClient(admin, token=token)
        for model in asked.models:
            if not stopped.is_set():
                step(f"having a pod prove {model.found.reference}")
                proofs[model.found.reference] = _proved(client, model.found)
        return ask(gateway, stopped)

    with shown_steps() as step:
        if want.gateway is not None:
            return ask(want.gateway, threading.Event()), proofs
        with tempfile.TemporaryDirectory(prefix="marway-adopt-") as name:
            place = Path(name)
            found = with_cluster(prove_and_ask, want.plan, registry=registry, directory=place, step=step, noticed=warn)
            return found, proofs


def _proved(client: AdminClient, model: FoundModel) -> str:
    """Have a pod load a version and give its golden answers; return in one line what came of it."""
    path = f"/models/{model.name}/versions/{model.version}/load"
    try:
        load = client.call("POST", path, params={"prove": "true"})["loads"][0]
    except MarwayError as exc:
        return f"not proved: {exc.message}"
    count = load["report"]["examples"]
    given = f"gave its {count} golden answer{'s' * (count != 1)}" if count else "loaded it"
    return f"{load['pod']}, {load['report']['server']}, {given}"


def document(want: Wanted, asked: Asked, comparison: Comparison | None, proofs: Mapping[str, str]) -> dict[str, Any]:
    """Return what a report says beside what was taken over."""
    found = asked.document(gateway=want.gateway)
    if comparison is not None:
        new = want.gateway or f"a gateway of Marway with {_named(want.plan)} on the same machine"
        old = None if want.old is None else want.old.url
        found["comparison"] = {**compared_document(comparison, old=old, new=new), "proofs": dict(proofs)}
    return found


def print_compared(comparison: Comparison) -> None:
    """Print how answers and times compare, and how many lines a client changes."""
    rows = [_row(each) for each in comparison.models]
    print_table(("MODEL", "REQUESTS", "EQUAL", "OTHER", "FAILS HERE", "NEW ÷ OLD", "MARWAY IS"), rows)
    for each in comparison.models:
        for example in each.examples[:3]:
            typer.echo(printable(f"  {each.model}/{each.version}, {example.where}: {example.difference}"))
    for name, count in comparison.not_found.items():
        warn(f"{count} requests are for {clip(name, 80)}, which the source does not have")


def differs(comparison: Comparison) -> str | None:
    """Return in one line what is not the same, or None."""
    if comparison.ok:
        return None
    asked_in_all = sum(each.requests for each in comparison.models)
    other = asked_in_all - sum(each.equal for each in comparison.models)
    first = next(each for each in comparison.models if not each.ok)
    such = f", such as {first.examples[0].where}: {first.examples[0].difference}" if first.examples else ""
    return f"{other} of {asked_in_all} requests are not answered the same{such}"


def _row(model: ComparedModel) -> tuple[str, ...]:
    timing = model.timing
    ratio, verdict = "-", "not measured"
    if timing is not None:
        between = f" ({timing.low:.2f}–{timing.high:.2f})" if timing.low is not None else ""
        ratio, verdict = f"{timing.ratio:.2f}{between}", timing.verdict
    counts = (model.requests, model.equal, model.differing + sum(model.not_compared.values()), model.failed)
    return (f"{model.model}/{model.version}", *map(str, counts), ratio, verdict)


def _headers(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip().isascii() or not name.strip() or not value.strip().isprintable():
            raise InvalidInput("--from-header: give a name and a value, such as 'Authorization: Bearer KEY'")
        found[name.strip().lower()] = value.strip()
    return found


def _engines(found: Found, engine: str | None) -> list[str]:
    """Return the engines of the pods that serve what was found, one each."""
    engines = []
    for model in found.models:
        if model.problem is None:
            is_mar = model.backend == "torchserve"
            engines.append((engine if is_mar else None) or model.serving.engine or model.backend)
    return list(dict.fromkeys(engines)) or [engine or "torchserve"]


def _named(plan: Sequence[PlannedPod]) -> str:
    engines = [f"`{each.engine}`" for each in plan]
    return f"a pod of {engines[0]}" if len(engines) == 1 else f"pods of {', '.join(engines)}"
