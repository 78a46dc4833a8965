"""The verb `marway dev`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from marway.errors import InvalidReference
from marway.process.stop_request import watch_for_stop
from marway.refs import check_model_name
from marway_archiver.proving.examples import Example, encode_all, example_of_flag, read_jsonl
from marway_dev.files import HandlerFiles
from marway_dev.terminal import Terminal
from marway_ops.shell.options import JsonOption

__all__ = ["dev"]


def dev(
    handler: Annotated[str, typer.Argument(help="The handler's Python file: FILE.py or FILE.py:FUNCTION.")],
    name: Annotated[str | None, typer.Option(help="The model's name; the handler's directory's by default.")] = None,
    model_file: Annotated[Path | None, typer.Option(help="Python file with the model's one class.")] = None,
    serialized_file: Annotated[Path | None, typer.Option(help="Weights (.pt, .pth, .onnx, …).")] = None,
    extra_files: Annotated[
        str | None, typer.Option(help="Comma-separated files, wildcards or directories, as for `marway pack`.")
    ] = None,
    config_file: Annotated[Path | None, typer.Option("--config-file", "-c", help="Model configuration (YAML).")] = None,
    example: Annotated[
        list[str] | None,
        typer.Option(
            "--example", "-e", metavar="VALUE|@FILE", help="Asked after each load: JSON, a text, or a file's bytes."
        ),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Examples: a JSON object a line, with input, output, content_type.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a call may take.")] = 120.0,
    once: Annotated[
        bool, typer.Option("--once", help="Load, ask the examples and end; status 1 where something fails.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a handler from its file, and load it anew when a file is saved: no archive, no version, no registry."""
    file = Path(handler.partition(":")[0])
    files = HandlerFiles(
        handler=handler,
        name=name or _name_of(file),
        model_file=model_file,
        serialized_file=serialized_file,
        extra_files=extra_files,
        config_file=config_file,
    )
    files.check()
    asked = [*map(example_of_flag, example or ()), *(read_jsonl(examples) if examples is not None else ())]
    encode_all(asked)  # refused before anything is started
    terminal = Terminal(as_json=as_json)
    well = asyncio.run(_served(files, asked, terminal, host=host, port=None if once else port, timeout_s=timeout))
    if once and not well:
        raise typer.Exit(1)


def _name_of(file: Path) -> str:
    """Return the name of the directory that a handler lies in, as far as a model can have it, else `model`."""
    found = file.absolute().parent.name
    try:
        check_model_name(found)
    except InvalidReference:
        return "model"
    return found


async def _served(
    files: HandlerFiles,
    examples: Sequence[Example],
    terminal: Terminal,
    *,
    host: str,
    port: int | None,
    timeout_s: float,
) -> bool:
    """Serve until asked to stop, on a port or, without one, only for the examples; return whether they went well."""
    # Here and not above: they import torch's runtime, web server and model server, which `--help` has no use for.
    from marway_dev.http import DevServer
    from marway_dev.serving import Served
    from marway_dev.workers import opened_workers
    from marway_http.http1.server import address_of, listening

    logging.getLogger("marway_runtime").setLevel(logging.WARNING)
    stop = watch_for_stop()

    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listening(host, port, flag="--port")) if port is not None else None
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-dev-")))
        async with opened_workers(files, home, terminal.log) as workers:
            served = Served(files, workers, terminal, examples, timeout_s=timeout_s)
            try:
                if sock is None:
                    return await served.reload()
                server = DevServer(served)
                tasks = [asyncio.create_task(server.serve(sockets=[sock]), name="http")]
                terminal.ready(f"http://{address_of(sock)}", files.name)
                tasks += [
                    asyncio.create_task(served.run(), name="serve"),
                    asyncio.create_task(stop.wait(), name="stop"),
                ]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                server.should_exit = True
                tasks[1].cancel()
                tasks[2].cancel()
                await asyncio.wait(tasks)
                for task in done:
                    task.result()
                return True
            finally:
                await served.aclose()
