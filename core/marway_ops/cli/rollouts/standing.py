"""`marway rollout status`: how a rollout stands, or how the newest one of a label ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from marway.refs import DEFAULT_LABEL, check_label, check_model_name
from marway.registry.traffic.status import RolloutStatus
from marway.text import printable
from marway_ops.cli.rollouts.steering import LabelOption, ModelArgument
from marway_ops.cli.rollouts.words import COLUMNS, guard_rows, status_lines
from marway_ops.shell.options import (
    AdminOption,
    JsonOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_if_any,
    opened_registry,
)
from marway_ops.shell.output import print_json, print_table

__all__ = ["status", "status_reader"]


def status(
    model: ModelArgument,
    label: LabelOption = DEFAULT_LABEL,
    rollout: Annotated[str | None, typer.Option("--rollout", metavar="ID", help="Which one; else the newest.")] = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a rollout stands: its step, and what each guard has found; or how the newest one ended."""
    found = status_reader(model, label, rollout, registry, gateway, token, token_file)()
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    typer.echo(printable("\n".join(status_lines(found))))
    if found.evidence:
        print_table(COLUMNS, guard_rows(found))


def status_reader(
    model: str,
    label: str,
    rollout: str | None,
    registry: str | None,
    gateway: str | None,
    token: str | None,
    token_file: Path | None,
) -> Callable[[], RolloutStatus]:
    """Return what asks a gateway how a rollout stands, or reads it in the registry, where nobody judges what is
    counted.
    """
    check_model_name(model)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        path = f"/models/{model}/labels/{label}/rollout"
        return lambda: RolloutStatus.model_validate(client.call("GET", path, params={"rollout": rollout}))
    place = opened_registry(registry)

    def read() -> RolloutStatus:
        found, running = place.rollout_status(model, label=label, rollout=rollout)
        why = "a gateway says how the guards stand (--gateway with its admin URL)"
        return found if running is None else found.model_copy(update={"evidence_missing": why})

    return read
