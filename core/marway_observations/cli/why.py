"""`marway why ID`: where one answer came from, and whether the version would give it again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import typer

from marway.admin_client import token_of
from marway.errors import InvalidInput, MarwayError, clip
from marway.records import Proof, utc_now
from marway.registry import open_registry
from marway.serving import moment
from marway_observations.cli.options import ObservationsOption
from marway_ops.shell.options import (
    GatewayOption,
    JsonOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    gateway_url,
    registry_url,
)
from marway_ops.shell.output import print_json, print_table, warn

__all__ = ["why"]


def why(
    prediction: Annotated[
        str, typer.Argument(metavar="ID", help="A prediction's id (`X-Prediction-Id`), or a request's.")
    ],
    replay: Annotated[
        bool, typer.Option("--replay", help="Ask the same version again and compare; exit code 1 where it differs.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Whose prediction it is: with thousands of models it is faster.")
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Where an id does not say when: look from then on; so long ago, or ISO 8601."
        ),
    ] = "7d",
    timeout: Annotated[float, typer.Option(min=0.001, help="Deadline of --replay, seconds.")] = 60.0,
    registry: RegistryOption = None,
    observations: ObservationsOption = None,
    gateway: GatewayOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where an answer came from: version, proof, release, pod, batch, times and feedback."""
    from marway_observations.store import open_observations
    from marway_observations.why import explained, find, replayed, steps_of

    if not prediction:
        raise InvalidInput("which prediction? give its id, which its answer had as X-Prediction-Id, or its request's")
    now = utc_now()
    url = registry_url(registry)
    known = open_registry(url)
    known.check_there()
    store = open_observations(url, observations)
    found = find(
        store,
        prediction,
        model=model,
        since=moment(since, now),
        until=now + timedelta(minutes=5),
    )
    document = explained(found, known, steps_of(store, found.row, known))
    for left in found.left_out:
        warn(f"{left.key} could not be read: {left.why}")
    failure: MarwayError | None = None
    document["replay"] = None
    if replay:
        try:
            document["replay"] = replayed(
                found.row,
                known,
                gateway=gateway_url(gateway),
                token=token_of(token, token_file),
                timeout_s=timeout,
            )
        except MarwayError as exc:
            failure = exc
            document["replay"] = {"same": None, "reason": exc.message}
    if as_json:
        print_json(document)
    else:
        heading, *others = _lines(document)
        print_table(heading, others)
    if failure is not None:
        raise MarwayError(f"not replayed: {failure.message}")
    if replay and not document["replay"]["same"]:
        raise typer.Exit(1)


def _lines(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what an explanation says, for people."""
    prediction, version, label = document["prediction"], document["version"], document["label"]
    ended = prediction["outcome"] if prediction["error"] is None else f"{prediction['outcome']}, {prediction['error']}"
    yield (
        "prediction",
        f"{prediction['prediction_id']} ended {_when(prediction['at'])} with {prediction['status']} ({ended})",
    )
    by = "".join(f", {name} {prediction[key]}" for name, key in _NAMED if prediction[key] is not None)
    yield "asked", f"over {prediction['surface']}{by}"
    if "missing" in version:
        yield "version", f"{version['model']} {version['version']}: {version['missing']}"
    else:
        deleted = f"; deleted {version['deleted']}" if "deleted" in version else ""
        yield (
            "version",
            f"{version['model']} {version['version']} ({version['id']}), published {_when(version['created_at'])} by "
            f"{version['publisher']}{deleted}",
        )
        yield "digest", f"sha256:{version['archive_sha256']}, for {version['backend']}"
        yield from (("trained", line) for line in _facts(version["training"]))
        if not document["proofs"]:
            yield "proof", "none: nobody has proved that it loads"
    for proof in document["proofs"]:
        finding = Proof.model_validate(proof).finding
        yield f"proof ({proof['kind']})", f"{finding}, {_when(proof['at'])}, {proof['by']}"
    yield "label", _label(label, prediction) if label is not None else "none: the caller named the version"
    yield "traffic", f"{document['traffic']['role']}: {document['traffic']['decision'] or '-'}"
    if document["graph"] is not None:
        yield "graph", "asked by its node {node}, for prediction {prediction_id}".format_map(document["graph"])
    if document["steps"] is None:
        yield "pod", _pod(document["pod"])
    else:
        yield from (("step", _step(each)) for each in document["steps"])
        if not document["steps"]:
            yield "step", "none is kept: its nodes asked nobody, or `observe` is off for what they asked"
    yield "time", _times(document["timings"])
    yield "answer", _answer(prediction)
    yield from _feedback(document["feedback"])
    if document["others"]:
        more = ", ".join(document["others"][:3])
        yield "request", f"had {len(document['others'])} more predictions: {more}"
    if prediction["request_id"] is not None:
        yield "log", f"marway logs {version['model']}/{version['version']} --request {prediction['request_id']}"
    if document["replay"] is not None:
        yield "replay", _replay(document["replay"])


_NAMED = (("client", "client"), ("request", "request_id"), ("group", "group_id"))


def _label(label: dict[str, Any], prediction: dict[str, Any]) -> str:
    entry, now = label["entry"], label.get("points_at")
    if entry is None:
        return f"{label['label']}: {label.get('unknown', 'its history does not say who had it point here')}"
    note = f": {entry['note']}" if entry["note"] else ""
    moved = "" if now == entry["to"] else f"; now it points at {now or 'nothing'}"
    how = "rolled back" if entry["kind"] == "rollback" else "forced" if entry["forced"] else "released"
    change = f"{how} {_when(entry['at'])} by {entry['by']} (change {entry['generation']}){note}"
    return f"{label['label']} → {entry['to']}, {change}{moved}"


def _pod(pod: dict[str, Any]) -> str:
    if pod["cache"] == "hit":
        return "none: the gateway had the answer from before"
    if pod["pod"] is None:
        return "none was asked"
    tried = "" if pod["attempts"] == 1 else f", the last of {pod['attempts']} attempts"
    rows = pod["batch_rows"]
    batch = "" if rows is None else f", in a call of {rows} row{'s' * (rows != 1)}"
    return f"{pod['pod']}{tried}{batch}"


def _step(step: dict[str, Any]) -> str:
    label = f" ({step['label']})" if step["label"] is not None else ""
    role = f", {step['role']}" if step["role"] != "base" else ""
    ended = step["outcome"] if step["error"] is None else f"{step['outcome']}, {step['error']}"
    by = _pod({**step, "batch_rows": None})
    took = f"{(step['duration_s'] or 0.0) * 1000:.1f} ms"
    which = f"{step['node']}: {step['model']} {step['version']}{label}{role}"
    return f"{which}: {ended} in {took}; {by}; {step['prediction_id']}"


def _times(timings: dict[str, float | None]) -> str:
    named = ("resolve", "queue", "model", "way") if timings["model_s"] is not None else ("resolve", "pod")
    parts = [
        f"{name} {value * 1000:.1f}" for name in (*named, "gateway") if (value := timings[f"{name}_s"]) is not None
    ]
    return f"{(timings['duration_s'] or 0.0) * 1000:.1f} ms ({', '.join(parts)})"


def _answer(prediction: dict[str, Any]) -> str:
    finite = {True: ", all numbers finite", False: ", with a number that is not finite", None: ""}[prediction["finite"]]
    tokens = prediction["completion_tokens"]
    counted = "" if tokens is None else f", {tokens} tokens"
    kept = "kept" if prediction["bodies"] == "kept" else f"not kept ({prediction['bodies']})"
    return f"{prediction['response_bytes']} bytes{finite}{counted}; bodies {kept}"


def _feedback(feedback: dict[str, Any]) -> Iterator[tuple[str, str]]:
    counts = {name: value for name, value in feedback["counts"].items() if value is not None}
    parts = [f"{name} {counts[name]}" for name in ("truth", "correct", "score") if name in counts]
    if not parts:
        yield "feedback", "none yet"
        return
    sources = ", ".join(sorted({each["source"] for each in feedback["given"] if each["source"]}))
    given = len(feedback["given"])
    from_whom = f" by {sources}" if sources else ""
    yield "feedback", f"{', '.join(parts)} (given {given} time{'s' * (given != 1)}{from_whom})"


def _replay(replay: dict[str, Any]) -> str:
    if replay["same"] is None:
        return f"not made: {replay['reason']}"
    if replay["same"]:
        return "the same answer" if replay["status"] < 400 else "it fails in the same way"
    redacted = (
        f"; of what was kept these had been removed: {', '.join(replay['redacted'])}" if replay["redacted"] else ""
    )
    return f"DIFFERENT: {replay['difference']}{redacted}"


def _facts(training: dict[str, Any]) -> Iterator[str]:
    for name, value in training.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each:g}" for key, each in value.items())
        yield clip(f"{name}: {value}", 200)


def _when(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC"
