"""Verbs that change what the registry has: `marway rollback`, `delete` and `serving`; `gc` is a module of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from marway.admin_client import AdminClient
from marway.errors import InvalidSettings, VersionNotFound
from marway.process.identity import this_user
from marway.records import ModelState, VersionRecord, overrides
from marway.refs import DEFAULT_LABEL, Reference, check_label, check_model_name, check_version
from marway.registry.releasing import check_serving_fields
from marway.text import did_you_mean
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
from marway_ops.shell.output import change_entry, history_entry, moved, print_found, print_result

__all__ = ["delete", "rollback", "serving"]


def rollback(
    model: Annotated[str, typer.Argument(help="Model name.")],
    label: Annotated[str, typer.Option(help="Label to move back.")] = DEFAULT_LABEL,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Go back to this version, which had the label before.")
    ] = None,
    if_currently: Annotated[str | None, typer.Option(help="Only if the label is at this version.")] = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo the newest release of a label that is not undone yet; every gateway follows within 2 seconds.

    With --to the label goes back to a version that had it before, however many releases ago.
    """
    check_model_name(model)
    check_label(label)
    if to is not None:
        check_version(to)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        body = {"if_currently": if_currently, "note": note, **({} if to is None else {"to": to})}
        entry = change_entry(client.call("POST", f"/models/{model}/labels/{label}/rollback", body=body))
    else:
        change = opened_registry(registry).rollback(
            model, label=label, to=to, if_currently=if_currently, note=note, by=this_user()
        )
        entry = history_entry(change.entry)
    print_result(entry, moved(model, entry), as_json=as_json)


def delete(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str | None, typer.Argument(help="Version to delete; without it, all of the model.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what labels point at, which are taken away with it, or a graph names.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a whole model is deleted.")] = False,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a version, or a model whole; it is refused everywhere within 2 seconds, and its bytes go with gc.

    What was deleted does not come back. A deleted model's name can be used again, for versions that it has not had.
    """
    check_model_name(model)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    params = {"force": "true" if force else None, "note": note}
    if version is None:
        _agreed_to_delete(model, yes=yes)
        path = f"/models/{model}/versions"
        if client is not None:
            entries = [change_entry(each) for each in client.call("DELETE", path, params=params)["deleted"]]
        else:
            changes = [*opened_registry(registry).delete_model(model, note=note, forced=force, by=this_user())]
            entries = [history_entry(change.entry) for change in changes]
        versions = ", ".join(str(entry["from"]) for entry in entries)
        print_result(entries, f"{model} is deleted ({versions or 'nothing was left of it'})", as_json=as_json)
        return
    check_version(version)
    if yes:
        raise typer.BadParameter("it goes with a whole model: a version is deleted without a question")
    if client is not None:
        entry = change_entry(client.call("DELETE", f"/models/{model}/versions/{version}", params=params))
    else:
        change = opened_registry(registry).delete(model, version, note=note, forced=force, by=this_user())
        entry = history_entry(change.entry)
    print_result(entry, f"{model} {version} is deleted", as_json=as_json)


def _agreed_to_delete(model: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidSettings(f"this deletes all versions of {model} for good: say --yes where nobody can be asked")
    typer.confirm(f"Delete all versions of {model} for good?", abort=True, err=True)


def serving(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str | None, typer.Option(help="This version; * means all, which is what changes go to.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a setting; repeatable.")
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Let the record's value count again; repeatable.")
    ] = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how versions are served, or change it; every gateway follows within 2 seconds."""
    changes = _parsed(set_ or ())
    check_serving_fields([*changes, *(unset or ())])
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        check_model_name(model)
        _print_document(_through(client, model, version, changes, unset or (), note), as_json=as_json)
        return
    place = opened_registry(registry)
    name = place.find(model)
    if changes or unset:
        change = place.set_serving(
            name, version=version or "*", set_fields=changes, unset=unset or (), note=note, by=this_user()
        )
        state = change.state
    else:
        state = place.state(name)
    if version in (None, "*"):
        versions = [each for each in place.versions(name) if each not in state.tombstones]
        records = [place.record(name, each) for each in versions]
    else:
        assert version is not None
        records = [place.resolve(Reference(name, version))]
    _print_document(_document(name, state, records), as_json=as_json)


def _through(
    client: AdminClient,
    model: str,
    version: str | None,
    changes: dict[str, Any],
    unset: Sequence[str],
    note: str | None,
) -> dict[str, Any]:
    """Ask a gateway for what is shown, after the change if there is one."""
    path = f"/models/{model}/serving"
    if changes or unset:
        body = {"version": version or "*", "set": changes, "unset": list(unset), "note": note}
        found = client.call("PATCH", path, body=body)
    else:
        found = client.call("GET", path)
    served = found["serving"]
    if version not in (None, "*"):
        if version not in served:
            raise VersionNotFound(
                f"model {model!r} has no version {version!r}: it has {', '.join(served) or 'none yet'}"
                + did_you_mean(version or "", served, "version ", same_numbers=True)
            )
        served = {version: served[version]}
    return {"name": found["name"], "overrides": found["overrides"], "serving": served}


def _parsed(assignments: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not FIELD=VALUE", param_hint="--set")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes


def _document(name: str, state: ModelState, records: Sequence[VersionRecord]) -> dict[str, Any]:
    return {
        "name": name,
        "overrides": overrides(state.serving),
        "serving": {record.version: state.serving_for(record).model_dump(mode="json") for record in records},
    }


def _print_document(document: dict[str, Any], *, as_json: bool) -> None:
    served, given = document["serving"], document["overrides"]
    fields: dict[str, Any] = next(iter(served.values()), {})

    def cell(version: str, field: str) -> str:
        value = json.dumps(served[version][field])
        for key in (version, "*"):
            if field in given.get(key, {}):
                return f"{value} (set for {'all' if key == '*' else key})"
        return value

    rows = ((field, *(cell(version, field) for version in served)) for field in fields)
    print_found(document, ("setting", *served), rows, as_json=as_json)
