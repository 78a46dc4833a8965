"""`marway contract`: what consumers of a model rely on, and whether a version keeps it."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from marway.answers.contracts import check_expected, expected_answer
from marway.errors import InvalidInput, InvalidSettings, clip
from marway.process.identity import this_user
from marway.protection.contracts import Contract, ContractReport
from marway.records import utc_now
from marway.refs import check_label, check_model_name
from marway_ops.shell.options import (
    AdminOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_client,
    admin_if_any,
    opened_registry,
)
from marway_ops.shell.output import print_found, print_json, print_result

__all__ = ["contract"]

contract = typer.Typer(
    name="contract",
    help="Keep what consumers rely on: no label moves to a version that breaks it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelArgument = Annotated[str, typer.Argument(help="Model name.")]
ConsumerOption = Annotated[str, typer.Option(help="Who relies on it: a team, a service.")]
NameOption = Annotated[str, typer.Option(help="What the consumer calls it.")]
_SHOWN: Final = 60


@contract.command()
def add(
    model: ModelArgument,
    consumer: ConsumerOption,
    name: NameOption,
    input_: Annotated[Path, typer.Option("--input", metavar="FILE", help="The request's body.")],
    content_type: Annotated[
        str | None, typer.Option(help="The request's content type; else by the file's name, else application/json.")
    ] = None,
    expect: Annotated[Path | None, typer.Option(metavar="FILE", help="The answer that is expected.")] = None,
    from_label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Expect what this label's version answers now.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(metavar="JMESPATH", help="What must be as it was; else the whole answer. Repeatable."),
    ] = None,
    types: Annotated[bool, typer.Option("--types", help="Fields and their types only, not their values.")] = False,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="How far numbers may lie apart.")] = 1e-4,
    label: Annotated[
        list[str] | None, typer.Option(help="Only this label has to keep it, else all. Repeatable.")
    ] = None,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a request of a consumer and what of its answer must stay, or replace it.

    From then on every release and rollout asks a pod for it first, and a refusal names the consumer.
    """
    check_model_name(model)
    for each in label or ():
        check_label(each)
    if (expect is None) == (from_label is None):
        raise typer.BadParameter(
            "give one of them: the answer, or whose answer it is", param_hint="--expect/--from-label"
        )
    data = _bytes_of(input_)
    kind = content_type or mimetypes.guess_type(input_.name)[0] or "application/json"
    expectation: dict[str, Any] = {
        "fields": fields or [],
        "match": "types" if types else "values",
        "tolerance": tolerance,
        "labels": label or [],
        "note": note,
    }
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        body = {"input_b64": _encoded(data), "content_type": kind, **expectation, "from_label": from_label}
        if expect is not None:
            body["expect_b64"] = _encoded(_bytes_of(expect))
        document = client.call("PUT", f"/models/{model}/contracts/{consumer}/{name}", body=body)
    elif expect is None:
        raise InvalidSettings("only a pod knows what a version answers: give --gateway, or the answer (--expect)")
    else:
        answer = expected_answer(_bytes_of(expect))
        made = Contract.made(
            data,
            consumer=consumer,
            name=name,
            content_type=kind,
            kind=answer.kind,
            value=answer.value,
            by=this_user(),
            at=utc_now(),
            **expectation,
        )
        check_expected(made)
        opened_registry(registry).add_contract(model, made)
        document = made.document()
    print_result(document, f"{model}: {consumer} relies on {name}: {_relied_on(document)}", as_json=as_json)


@contract.command("list")
def list_(
    model: ModelArgument,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what consumers of a model rely on."""
    check_model_name(model)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        documents = client.call("GET", f"/models/{model}/contracts")
    else:
        documents = [each.document() for each in opened_registry(registry).contracts(model)]
    print_found(
        documents,
        ("consumer", "contract", "relies on", "labels", "added (UTC)", "by"),
        (
            (
                *(each["consumer"], each["name"], _relied_on(each), ", ".join(each["labels"]) or "all"),
                *(each["at"][:19], each["by"]),
            )
            for each in documents
        ),
        as_json=as_json,
        none=f"nobody has said what they rely on: `marway contract add {model} --consumer NAME --name N --input FILE`",
    )


@contract.command()
def remove(
    model: ModelArgument,
    consumer: ConsumerOption,
    name: NameOption,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a contract: no version has to keep it any more."""
    check_model_name(model)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        client.call("DELETE", f"/models/{model}/contracts/{consumer}/{name}", params={"note": note})
    else:
        opened_registry(registry).remove_contract(model, consumer, name, note=note, by=this_user())
    done = {"model": model, "consumer": consumer, "name": name, "removed": True}
    print_result(done, f"{model}: {consumer} relies on {name} no more", as_json=as_json)


@contract.command()
def check(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="Version, or the label of it.")],
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a pod load a version and ask it every contract; status 1 where it breaks one. No label moves."""
    check_model_name(model)
    found = admin_client(gateway, token, token_file).call("POST", f"/models/{model}/versions/{version}/contracts")
    report = ContractReport.model_validate(found)
    if as_json:
        print_json(found)
    elif not report.contracts:
        typer.echo(f"nobody has said what they rely on of {model}")
    else:
        asked = ", ".join(f"{consumer} ({count})" for consumer, count in sorted(report.contracts.items()))
        kept = "keeps all contracts" if not report.broken else f"breaks {len(report.broken)} contracts"
        typer.echo(f"{model} {report.version} {kept} on pod {report.pod}: {asked}")
        for each in report.broken:
            typer.echo(f"  {each.consumer}: {each.name}: {each.difference}")
    if report.broken:
        raise typer.Exit(1)


def _relied_on(document: Mapping[str, Any]) -> str:
    """Return what of an answer must stay, in a few words."""
    kind = "types" if document["match"] == "types" else "values"
    if document["fields"]:
        return f"{kind} of {', '.join(document['fields'])}"
    if kind == "types":
        return "types of the whole answer"
    return f"answer {clip(json.dumps(document['expected'], ensure_ascii=False), _SHOWN)}"


def _bytes_of(file: Path) -> bytes:
    data = file.read_bytes()
    if not data:
        raise InvalidInput(f"{file} is empty, which is nothing to rely on: give another file")
    return data


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
