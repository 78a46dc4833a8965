"""`marway predict`: one prediction through a gateway."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer

from marway.admin_client import token_of
from marway.errors import InvalidInput, MarwayError, Unavailable
from marway.refs import parse_reference
from marway.text import printable
from marway.wire import headers, problems
from marway_ops.cli.options import GatewayOption, JsonOption, TokenFileOption, TokenOption, gateway_url
from marway_ops.cli.output import print_json

__all__ = ["predict", "predict_once"]


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
    answer = predict_once(
        gateway_url(gateway),
        reference,
        body,
        content_type=content_type or _guess(data, body),
        timeout_s=timeout,
        token=token_of(token, token_file),
    )
    if as_json:
        print_json(_document(answer))
    elif output is not None:
        _write(output, answer.content)
    elif not sys.stdout.isatty():
        sys.stdout.buffer.write(answer.content)
    elif (text := _text(answer.content)) is not None:
        typer.echo(printable(text).removesuffix("\n"))
    else:
        kind = answer.headers.get("content-type", "no content type")
        size = f"{len(answer.content)} bytes, {kind}"
        typer.echo(printable(f"the answer is no text ({size}): save it with --output FILE or > FILE"))


def predict_once(
    gateway: str, reference: str, body: bytes, *, content_type: str, timeout_s: float, token: str | None = None
) -> httpx.Response:
    """Send one input and return the model's answer.

    Args:
        gateway: Its URL.
        reference: ``MODEL``, ``MODEL/VERSION``, ``MODEL/LABEL`` or an id.
        body: The input.
        content_type: Of ``body``.
        timeout_s: Deadline of the whole request, in seconds.
        token: A bearer token, or None.

    Raises:
        MarwayError: What the gateway answered, as the error it stands for.
        Unavailable: There is no gateway.
    """
    sent = {"content-type": content_type, headers.REQUEST_TIMEOUT_MS: str(max(1, int(timeout_s * 1000)))}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    try:
        with httpx.Client(timeout=httpx.Timeout(timeout_s + 5.0, connect=5.0), trust_env=False) as client:
            answer = client.post(f"{gateway}/predict/{reference}", content=body, headers=sent)
    except httpx.TransportError as exc:
        raise Unavailable(f"no gateway answers at {gateway}: {exc}; is `marway up` running?") from exc
    if answer.headers.get("content-type", "").startswith(problems.CONTENT_TYPE):
        raise problems.parse_problem(answer.content, status=answer.status_code)
    if answer.is_error:
        raise MarwayError(f"the model answered with status {answer.status_code}: {answer.text[:500]}")
    return answer


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


def _document(answer: httpx.Response) -> dict[str, object]:
    try:
        value: object = answer.json()
    except ValueError:
        value = _text(answer.content)
        if value is None:
            value = {"b64": base64.b64encode(answer.content).decode()}
    return {
        "model": answer.headers.get(headers.MODEL_NAME),
        "version": answer.headers.get(headers.MODEL_VERSION),
        "id": answer.headers.get(headers.MODEL_ID),
        "request_id": answer.headers.get(headers.REQUEST_ID),
        "content_type": answer.headers.get("content-type"),
        "answer": value,
    }
