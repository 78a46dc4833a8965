"""`marway protect` and `marway approve`: what a label asks for before it moves, and who agrees to a move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from marway.process.identity import this_user
from marway.protection.labels import REQUIREMENTS
from marway.records import HistoryEntry
from marway.refs import DEFAULT_LABEL, check_label, check_model_name, check_version
from marway_ops.shell.options import (
    AdminOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_if_any,
    opened_registry,
)
from marway_ops.shell.output import change_entry, history_entry, print_found, print_result

__all__ = ["approve", "protect", "protection_words"]

_NONE = "none"


def protect(
    model: Annotated[str, typer.Argument(help="Model name.")],
    label: Annotated[str, typer.Option(help="Label to protect.")] = DEFAULT_LABEL,
    approvals: Annotated[
        int | None,
        typer.Option(metavar="K", min=0, max=20, help="So many others agree first (`marway approve`); 0: nobody."),
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(metavar="PROOF,…", help=f"Proofs that are there first: {', '.join(REQUIREMENTS)}; none."),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WINDOW",
            help="When it does not move, such as 'Fri 16:00-Mon 08:00 Europe/Berlin', or from date to date; none. "
            "Repeatable.",
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Protect it no more.")] = False,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a label is protected, or protect it; what is not named stays as it is.

    What it asks for holds for every release and rollout, with --force and without a gateway, too. A rollback is never
    held up.
    """
    check_model_name(model)
    check_label(label)
    asked: dict[str, Any] = {
        "approvals": approvals,
        "require": None if require is None else _listed(require.split(",")),
        "freeze": None if freeze is None else _listed(freeze),
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if off and given:
        raise typer.BadParameter("it takes the protection away: give nothing else", param_hint="--off")
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    path = f"/models/{model}/labels/{label}/protection"
    if client is None:
        place = opened_registry(registry)
        if off:
            place.unprotect(model, label=label, note=note, by=this_user())
        elif given:
            place.protect(model, label=label, **given, note=note, by=this_user())
        document = place.protection(model, label=label).document()
    else:
        if off:
            client.call("DELETE", path, params={"note": note})
        elif given:
            client.call("PATCH", path, body={**given, "note": note})
        document = client.call("GET", path)
    _show(document, as_json=as_json)


def approve(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str, typer.Argument(help="Version that may take the label.")],
    label: Annotated[str, typer.Option(help="The protected label.")] = DEFAULT_LABEL,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what you agreed to.")] = False,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Agree to a label's move to a version, which ends when the label moves there.

    Others than the version's publisher and whoever moves the label have to agree.
    """
    check_model_name(model)
    check_version(version)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is None:
        change = opened_registry(registry).approve(
            model, version, label=label, withdraw=withdraw, note=note, by=this_user()
        )
        entry = history_entry(change.entry)
    else:
        body = {"version": version, "withdraw": withdraw, "note": note}
        entry = change_entry(client.call("POST", f"/models/{model}/labels/{label}/approvals", body=body))
    did = "takes back that" if withdraw else "agrees that"
    print_result(entry, f"{entry['by']} {did} {model} {label} may move to {version}", as_json=as_json)


def _listed(given: Sequence[str]) -> list[str]:
    """Return what an option names; the one word `none` is nothing."""
    named = [each.strip() for each in given if each.strip()]
    return [] if named == [_NONE] else named


def _show(document: Mapping[str, Any], *, as_json: bool) -> None:
    at = document["version"] or "no version"
    rows: list[tuple[str, str]] = [("label", f"{document['label']} → {at}")]
    if not document["protected"]:
        rows.append(("protected", "no: it moves to any version that is proved"))
    else:
        rows.append(("approvals", f"of {document['approvals']} others" if document["approvals"] else "of nobody"))
        rows.append(("proofs", ", ".join(document["require"]) or "as for any label"))
        rows += [("frozen", window) for window in document["freeze"]] or [("frozen", "never")]
        why = f": {document['note']}" if document["note"] else ""
        rows.append(("protected", f"{document['at'][:19]} by {document['by']}{why}"))
    for each in document["versions"]:
        agreed = ", ".join(each["approved_by"]) or "nobody yet"
        asked = f"; asked by {', '.join(each['asked_by'])}" if each["asked_by"] else ""
        rows.append((f"version {each['version']}", f"agreed: {agreed}{asked}"))
    print_found(document, (document["model"], ""), rows, as_json=as_json)


def protection_words(entry: HistoryEntry) -> str | None:
    """Return what a change did to a label's protection or to contracts, as the history shows it; None where nothing."""
    if entry.contract is not None:
        did = "relies on" if entry.contract.action == "add" else "relies no more on"
        return f"{entry.contract.consumer} {did} {entry.contract.name}"
    done = entry.protection
    if done is None:
        return None
    label, version = entry.label, done.version
    asked = []
    if done.approvals is not None:
        asked.append(f"approvals of {done.approvals} others")
    asked += [
        f"{what} {', '.join(each) or _NONE}"
        for what, each in (("proofs", done.require), ("freeze", done.freeze))
        if each is not None
    ]
    return {
        "protect": f"{label} protected: {'; '.join(asked)}",
        "off": f"{label} protected no more",
        "ask": f"sign-off asked for {version} at {label}",
        "approve": f"agreed to {version} at {label}",
        "withdraw": f"sign-off of {version} at {label} withdrawn",
    }[done.action]
