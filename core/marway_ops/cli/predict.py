"""`marway predict`: one prediction through a gateway."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer

from marway.admin_client import token_of
from marway.client import Answer, Client
from marway.errors import InvalidInput
from marway.refs import parse_reference
from marway.text import printable
from marway.wire import headers
from marway_ops.shell.options import GatewayOption, JsonOption, TokenFileOption, TokenOption, gateway_url
from marway_ops.shell.output import print_json

__all__ = ["predict"]


def predict(
    model: Annotated[str, typer.Argument(help="MODEL, MODEL/VERSION, MODEL/LABEL or a model id.")],
    data: Annotated[str, typer.Argument(help="The input: text, @FILE, or - for standard input.")],
    content_type: Annotated[
        str | None,
        typer.Option(help="Content type; else told by the input: JSON, text or bytes."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Deadline of the whole request, seconds.")] = 60.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answer to this file.")] = None,
    gateway: GatewayOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one input to a model and print its answer."""
    if output is not None and as_json:
        raise typer.BadParameter("it holds the answer alone: leave --json away", param_hint="--output")
    reference = str(parse_reference(model))
    body = _input(data)
    key = token_of(token, token_file)
    with httpx.Client(trust_env=False) as http, Client(gateway_url(gateway), key, http_client=http) as client:
        kind = content_type or _guess(data, body)
        answer = client.predict_full(reference, body, content_type=kind, timeout_s=timeout)
    if as_json:
        print_json(_document(answer))
    elif output is not None:
        _write(output, answer.content)
    elif not sys.stdout.isatty():
        sys.stdout.buffer.write(answer.content)
    elif (text := _text(answer.content)) is not None:
        typer.echo(printable(text).removesuffix("\n"))
    else:
        size = f"{len(answer.content)} bytes, {answer.content_type or 'no content type'}"
        typer.echo(printable(f"the answer is no text ({size}): save it with --output FILE or > FILE"))


def _input(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        path = Path(data[1:])
        try:
            return path.read_bytes()
        except OSError as exc:
            raise InvalidInput(f"cannot read the input file {path}: {exc.strerror}") from exc
    return data.encode()


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as exc:
        raise InvalidInput(f"cannot write the answer to {path}: {exc.strerror}") from exc


def _text(content: bytes) -> str | None:
    """Return an answer as text, or None where it is none: a terminal is no place for its bytes."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _guess(data: str, body: bytes) -> str:
    """Return the content type of an input whose sender did not say."""
    name = data[1:].lower() if data.startswith("@") else ""
    for ending, kind in {".json": "application/json", ".png": "image/png", ".jpg": "image/jpeg"}.items():
        if name.endswith(ending):
            return kind
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/json" if text.lstrip()[:1] in ("{", "[") else "text/plain"


def _document(answer: Answer) -> dict[str, object]:
    try:
        value: object = json.loads(answer.content)
    except ValueError:
        value = _text(answer.content)
        if value is None:
            value = {"b64": base64.b64encode(answer.content).decode()}
    return {
        "model": answer.model,
        "version": answer.version,
        "id": answer.headers.get(headers.MODEL_ID),
        "request_id": answer.request_id,
        "prediction_id": answer.prediction_id,
        "content_type": answer.headers.get("content-type"),
        "answer": value,
    }
