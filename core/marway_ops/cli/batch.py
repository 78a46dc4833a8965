"""`marway batch`: predictions for whole files, each row once, at the lowest priority."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

import httpx
import typer

from marway.admin_client import token_of
from marway.client import AsyncClient
from marway.objects import open_store
from marway.refs import Reference, parse_reference
from marway_ops.batch.job import FORMATS, OUTPUT_FORMATS, OWN_COLUMNS, Job
from marway_ops.batch.output import Output
from marway_ops.batch.pace import Pace
from marway_ops.batch.progress import shown_progress
from marway_ops.batch.requests import Asker
from marway_ops.batch.running import BatchRun, Done, Shard
from marway_ops.batch.sources import find_sources, format_of, output_format_of
from marway_ops.shell.options import GatewayOption, JsonOption, TokenFileOption, TokenOption, gateway_url
from marway_ops.shell.output import print_json

__all__ = ["batch"]

_PART_BYTES: Final = 8 * 1024 * 1024
_SHARD: Final = re.compile(r"(\d{1,6})/(\d{1,6})")


def batch(
    model: Annotated[str, typer.Argument(help="MODEL, MODEL/VERSION, MODEL/LABEL or a model id.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="File, directory, 'PATTERN' or s3:// URL, prefix or pattern; can be repeated."),
    ],
    output: Annotated[
        str, typer.Option(help="Directory or s3:// URL that the answers go to; its suffix can say the format.")
    ],
    input_format: Annotated[
        str | None, typer.Option(help=f"{', '.join(FORMATS)}; else by suffix. In files each file is a row.")
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--output-format", "--format", help=f"{', '.join(OUTPUT_FORMATS)}; else by suffix, else as read."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Send this field or column alone, and not whole rows.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Field or column that goes with the answer; can be repeated.")
    ] = None,
    content_type: Annotated[str | None, typer.Option(help="What rows are sent as; else by what the row is.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only so many rows.")] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1024, help="Most requests at once; fewer while there is no room.")
    ] = 32,
    timeout: Annotated[float, typer.Option(min=0.001, help="Deadline of each request, seconds.")] = 60.0,
    give_up: Annotated[float, typer.Option(min=1, help="Stop when nothing was answered for so long, seconds.")] = 300.0,
    part_rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most rows of a file of the output.")] = 1000,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do each N-th part alone, from I on (0 to N-1): others do the rest.")
    ] = "0/1",
    gateway: GatewayOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict for every row of files, once each, beside other callers and never before them.

    Started again after it was stopped or killed, the same command goes on where it was.
    """
    reference = parse_reference(model)
    sources = find_sources(inputs)
    read_as = _one_of(input_format, FORMATS, "--input-format") or format_of(sources)
    write_as = _one_of(output_format, OUTPUT_FORMATS, "--output-format") or output_format_of(output, read_as)
    kept = tuple(dict.fromkeys(keep or ()))
    if read_as == "files" and (column or kept):
        raise typer.BadParameter("a file has no columns: leave --column and --keep away", param_hint="--input-format")
    if taken := sorted({*kept} & {*OWN_COLUMNS, "reason", "code", "status", "request_id"}):
        raise typer.BadParameter(f"the output has a column {taken[0]} of its own", param_hint="--keep")
    wanted = _Wanted(
        reference,
        {
            "reference": str(reference),
            "inputs": tuple(source.input for source in sources),
            "input_format": read_as,
            "output_format": write_as,
            "column": column,
            "keep": kept,
            "content_type": content_type,
            "limit": limit,
            "part_rows": part_rows,
            "part_bytes": _PART_BYTES,
        },
    )
    found = _shard(shard)
    kept_at = Output(open_store(output))

    url, key = gateway_url(gateway), token_of(token, token_file)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)

    async def run() -> tuple[Job, Done]:
        async with (
            httpx.AsyncClient(trust_env=False, limits=limits) as http,
            AsyncClient(url, key, timeout_s=timeout, retries=0, http_client=http) as client,
        ):
            asker = Asker(client, Pace(concurrency), give_up_s=give_up)
            job = await _begun(wanted, kept_at, asker)
            typer.echo(f"asking {job.model} {job.version} ({job.model_id}), to the end of this job", err=True)
            with shown_progress() as progress:
                return job, await BatchRun(job, sources, kept_at, asker, found, progress).run()

    job, done = asyncio.run(run())
    _print_end(job, done, output, found, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller said, without what the gateway knows."""

    reference: Reference
    fields: dict[str, Any]

    def job(self, model: str, version: str, model_id: str) -> Job:
        return Job(model=model, version=version, model_id=model_id, **self.fields)


async def _begun(wanted: _Wanted, output: Output, asker: Asker) -> Job:
    """Return the job as it was begun, with the version that its reference meant then."""
    begun = await asyncio.to_thread(output.begun)
    if begun is not None:
        return await asyncio.to_thread(output.begin, wanted.job(begun.model, begun.version, begun.model_id))
    target = await asker.resolve(wanted.reference)
    return await asyncio.to_thread(output.begin, wanted.job(target.model, target.version, target.id))


def _print_end(job: Job, done: Done, output: str, shard: Shard, *, as_json: bool) -> None:
    """Print what became of the job, or of this shard while others are not done."""
    whole = done.manifest or {}
    rows, failed = (whole["rows"], whole["failed"]) if whole else (done.rows, done.failed)
    if as_json:
        print_json(
            {
                "finished": bool(whole),
                "output": output,
                "model": job.model,
                "version": job.version,
                "model_id": job.model_id,
                "rows": rows,
                "failed": failed,
                "asked_now": done.rows + done.failed,
                "shard": f"{shard.index}/{shard.count}",
            }
        )
        return
    reasons = f"; {failed:,} failed: {output.rstrip('/')}/_failed/ says why" if failed else ""
    if whole:
        typer.echo(f"{rows:,} rows of {job.model} {job.version} are in {output}{reasons}")
    else:
        typer.echo(
            f"shard {shard.index}/{shard.count}: {rows:,} rows were added to {output}{reasons}; others are not done"
        )


def _one_of(given: str | None, known: tuple[Any, ...], flag: str) -> Any:
    if given is not None and given not in known:
        raise typer.BadParameter(f"{given!r} is none of {', '.join(known)}", param_hint=flag)
    return given


def _shard(text: str) -> Shard:
    found = _SHARD.fullmatch(text)
    if found is None or int(found[1]) >= int(found[2]):
        raise typer.BadParameter(f"{text!r}: use I/N, with I from 0 to N-1, such as 0/4", param_hint="--shard")
    return Shard(int(found[1]), int(found[2]))
