"""`marway rollout promote`, `abort`, `pause` and `resume`: what a person does to a rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marway.process.identity import this_user
from marway.refs import DEFAULT_LABEL, check_label, check_model_name
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
from marway_ops.shell.output import change_entry, history_entry, moved, print_result

__all__ = ["abort", "pause", "promote", "resume"]

ModelArgument = Annotated[str, typer.Argument(help="Model name.")]
LabelOption = Annotated[str, typer.Option(help="Label that is rolled out.")]
WhichOption = Annotated[
    str | None, typer.Option("--rollout", metavar="ID", help="Only if this rollout runs; `status` has its id.")
]


def promote(
    model: ModelArgument,
    label: LabelOption = DEFAULT_LABEL,
    rollout: WhichOption = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the label to the candidate now, whatever the guards have found so far."""
    entry = _turned("promote", model, label, rollout, note, registry, gateway, token, token_file)
    print_result(entry, moved(model, entry), as_json=as_json)


def abort(
    model: ModelArgument,
    label: LabelOption = DEFAULT_LABEL,
    rollout: WhichOption = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a rollout: every request goes to the base again within 2 seconds."""
    entry = _turned("abort", model, label, rollout, note, registry, gateway, token, token_file)
    line = f"the rollout of {_candidate(entry)} is aborted: {model} {label} stays at {entry['to']}"
    print_result(entry, line, as_json=as_json)


def pause(
    model: ModelArgument,
    label: LabelOption = DEFAULT_LABEL,
    rollout: WhichOption = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a rollout stay at its step until it is resumed; the candidate keeps its share of requests."""
    entry = _turned("pause", model, label, rollout, note, registry, gateway, token, token_file)
    percent = entry["rollout"]["percent"]
    line = f"the rollout of {_candidate(entry)} is paused at {percent:g} % of {model} {label}"
    print_result(entry, line, as_json=as_json)


def resume(
    model: ModelArgument,
    label: LabelOption = DEFAULT_LABEL,
    rollout: WhichOption = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a paused rollout go on: its step has its whole time again, and what was found before counts on."""
    entry = _turned("resume", model, label, rollout, note, registry, gateway, token, token_file)
    percent = entry["rollout"]["percent"]
    line = f"the rollout of {_candidate(entry)} goes on at {percent:g} % of {model} {label}"
    print_result(entry, line, as_json=as_json)


def _turned(
    action: str,
    model: str,
    label: str,
    rollout: str | None,
    note: str | None,
    registry: str | None,
    gateway: str | None,
    token: str | None,
    token_file: Path | None,
) -> dict[str, Any]:
    """Do it, through a gateway or in the registry itself, and return the history's entry as `--json` shows it."""
    check_model_name(model)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        body = {"rollout": rollout, "note": note}
        return change_entry(client.call("POST", f"/models/{model}/labels/{label}/rollout/{action}", body=body))
    place = opened_registry(registry)
    operations = {
        "promote": place.promote_rollout,
        "abort": place.abort_rollout,
        "pause": place.pause_rollout,
        "resume": place.resume_rollout,
    }
    return history_entry(operations[action](model, label=label, rollout=rollout, reason=note, by=this_user()).entry)


def _candidate(entry: dict[str, Any]) -> str:
    return str(entry["rollout"]["candidate"])
