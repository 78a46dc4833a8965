"""The page that a report of `marway adopt` is: from what `--json` prints to headings, tables and lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from marway_archiver.adopt.pages.blocks import Block, Code, Heading, Items, Table, Text, as_html, as_markdown

__all__ = ["blocks_of", "page_of"]

_KINDS: Final[Mapping[str, str]] = {
    "kserve": "KServe's YAML",
    "mlserver": "an MLServer tree",
    "modelmesh": "ModelMesh's YAML",
    "torchserve": "a TorchServe model store",
    "triton": "a Triton model repository",
}
_OF_VERSIONS: Final[Mapping[str, str]] = {
    "published": "published",
    "known": "was there before, the same bytes",
    "refused": "**not** taken over",
    "planned": "would be published",
}
_OUTCOMES: Final[Mapping[str, str]] = {
    "kept": "kept",
    "changed": "kept, nearly",
    "elsewhere": "to be said elsewhere",
    "none": "nothing like it",
}
_VERDICTS: Final[Mapping[str, str]] = {
    "faster": "faster",
    "slower": "slower",
    "as fast": "as fast",
    "not told": "neither is shown",
}
_PROTOCOLS: Final[Mapping[str, str]] = {"torchserve": "TorchServe REST", "v1": "v1", "v2": "Open Inference v2"}
_FIELDS_SHOWN: Final = 15
_COUNTED: Final = (
    *("model", "asked by", "requests", "equal", "other", "of these another decision"),
    *("fails here alone", "fails there alone", "fails in both", "unsteady there"),
)
_MEASURED: Final = (
    *("model", "pairs", "p50 old, ms", "p50 new, ms", "p95 old, ms", "p95 new, ms"),
    *("new ÷ old", "95 % interval", "Marway is"),
)


def page_of(document: Mapping[str, Any], form: str) -> str:
    """Return a report as a file's text: ``form`` is `.md` or `.html`."""
    blocks = blocks_of(document)
    if form == ".html":
        return as_html(blocks, title=_title(document))
    return as_markdown(blocks)


def blocks_of(document: Mapping[str, Any]) -> list[Block]:
    """Return what a report's page says, from its document."""
    return [
        Heading(_title(document), 1),
        *_summary(document),
        *_models(document["models"]),
        *_comparison(document.get("comparison")),
        *_client(document.get("client") or ()),
        *_settings(document),
        *_golden(document.get("requests")),
        *_notes(document),
    ]


def _title(document: Mapping[str, Any]) -> str:
    return f"Taking over {_KINDS.get(document['kind'], document['kind'])}: {Path(document['source']).name}"


def _summary(document: Mapping[str, Any]) -> Iterator[Block]:
    models = document["models"]
    outcomes = [each["outcome"] for each in models]
    counted = ", ".join(
        f"{outcomes.count(outcome)} {text.replace('**', '')}"
        for outcome, text in _OF_VERSIONS.items()
        if outcome in outcomes
    )
    names = len({each["name"] for each in models})
    sentences = [f"{names} model{'s' * (names != 1)} in {len(models)} version{'s' * (len(models) != 1)}: {counted}."]
    compared = document.get("comparison")
    if compared is not None:
        asked = sum(each["requests"] for each in compared["models"])
        equal = sum(each["equal"] for each in compared["models"])
        sentences.append(f"{asked} different request{'s' * (asked != 1)} sent to both: {equal} answered the same.")
    else:
        sentences.append("No answers were compared.")
    settings = [*document["settings"], *(one for each in models for one in each["settings"])]
    lost = sum(each["outcome"] == "none" for each in settings)
    if settings:
        sentences.append(f"{len(settings)} settings read, {lost} of which Marway has nothing like.")
    yield Text(" ".join(sentences))


def _models(models: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    yield Heading("What was found")
    rows = [
        (
            f"`{each['name']}`",
            f"`{each['version']}`",
            each["backend"],
            ", ".join(f"`{label}`" for label in each["labels"]) or "–",
            _OF_VERSIONS[each["outcome"]].replace("**", ""),
            f"`{each['sha256'][:12]}`" if each["sha256"] else "–",
        )
        for each in models
    ]
    yield Table(("model", "version", "backend", "labels", "", "sha256"), rows)
    sentences = [f"`{each['name']}/{each['version']}`: {each['problem']}" for each in models if each["problem"]]
    sentences += [f"`{each['name']}/{each['version']}`: {each['repacked']}" for each in models if each["repacked"]]
    sentences += [f"`{each['name']}/{each['version']}`: {text}" for each in models for text in each["warnings"]]
    if sentences:
        yield Items(sentences)


def _comparison(compared: Mapping[str, Any] | None) -> Iterator[Block]:
    if compared is None:
        return
    yield Heading("Old and new, request by request")
    old = f"`{compared['old']}`" if compared["old"] is not None else "the answers that the file of requests has"
    tolerance = compared["tolerance"]
    yield Text(
        f"Compared were {old} and {compared['new']}, by the path, headers and body of each request. Numbers may lie "
        f"{tolerance['absolute']:g}, or {tolerance['relative']:g} of the larger one, apart; integers, texts, statuses "
        "and content types may not."
    )
    if compared["proofs"]:
        yield Items([f"`{name}`: {sentences}" for name, sentences in compared["proofs"].items()])
    models = compared["models"]
    yield Table(_COUNTED, [_counts(each) for each in models])
    missing = [f"{count} for {name}, which the source does not have" for name, count in compared["not_found"].items()]
    missing += [
        f"{count} for `{each['model']}/{each['version']}`: {why}"
        for each in models
        for why, count in each["not_compared"].items()
    ]
    if missing:
        yield Text("Requests that were not compared:")
        yield Items(missing)
    for each in models:
        if each["fields"] or each["examples"]:
            yield Heading(f"Differences of {each['model']} {each['version']}", 3)
        if each["fields"]:
            shown = list(each["fields"].items())[:_FIELDS_SHOWN]
            yield Table(("field", "requests"), [(f"`{name}`", str(count)) for name, count in shown])
        if each["examples"]:
            yield Items([f"{one['where']}: {one['difference']}" for one in each["examples"]])
    yield from _timing(models)


def _counts(model: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("requests", "equal", "differing", "decides_otherwise", "failed", "old_failed", "both_failed", "unsteady")
    asked = ", ".join(_PROTOCOLS.get(each, each) for each in model["protocols"])
    return (f"`{model['model']}/{model['version']}`", asked, *(str(model[name]) for name in names))


def _timing(models: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    measured = [each for each in models if each["timing"] is not None]
    if not measured:
        return
    yield Heading("Faster or slower", 3)
    rows = []
    for each in measured:
        timing = each["timing"]
        interval = f"{timing['low']:.2f} to {timing['high']:.2f}" if timing["low"] is not None else "too few pairs"
        rows.append(
            (
                f"`{each['model']}/{each['version']}`",
                str(timing["pairs"]),
                *(f"{timing[name]:.2f}" for name in ("old_p50_ms", "new_p50_ms", "old_p95_ms", "new_p95_ms")),
                f"{timing['ratio']:.2f}",
                interval,
                _VERDICTS[timing["verdict"]],
            )
        )
    yield Table(_MEASURED, rows)
    yield Text(
        "One client, the two servers asked in turns, one right after the other. new ÷ old is the median of the ratios "
        "of such pairs, and the interval is that of this median, by the ranks of the ratios alone. As fast means that "
        "the whole interval is within 5 % of 1."
    )


def _client(lines: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    if not lines:
        return
    yield Heading("What a client changes")
    urls = [each for each in lines if each["before"].startswith("http")]
    if urls:
        yield Code(
            "\n".join(f"# {each['what']}: {each['why']}\n- {each['before']}\n+ {each['after']}" for each in urls),
            "diff",
        )
    rest = [each for each in lines if each not in urls]
    if rest:
        yield Items(
            [
                f"{each['what']}: {each['why']}" if not each["before"]
                else f"{each['what']}: `{each['before']}` becomes `{each['after']}`; {each['why']}"
                for each in rest
            ]
        )  # fmt: skip


def _settings(document: Mapping[str, Any]) -> Iterator[Block]:
    models = document["models"]
    found = [("the server", one) for one in document["settings"]]
    found += [(f"`{each['name']}/{each['version']}`", one) for each in models for one in each["settings"]]
    if not found:
        return
    yield Heading("What becomes of the settings")
    rows = [
        (of, f"`{one['name']}`", f"`{one['value']}`", _OUTCOMES[one["outcome"]], one["becomes"]) for of, one in found
    ]
    yield Table(("of", "setting", "value", "", "becomes"), rows)


def _golden(requests: Mapping[str, Any] | None) -> Iterator[Block]:
    if requests is None:
        return
    yield Heading("Requests and golden examples")
    sentences = [
        f"{requests['requests']} different requests; {requests['repeated']} more were the same as one of these"
    ]
    sentences += [f"left out, {count}: they {why}" for why, count in requests["left_out"].items()]
    if requests["not_read"]:
        names = ", ".join(f"`{name}`" for name in requests["not_read"])
        sentences.append(f"fields of the file that say nothing of a request: {names}")
    for name, golden in requests["golden"].items():
        sentences.append(f"`{name}`: {golden['examples']} golden example{'s' * (golden['examples'] != 1)}")
        if golden["signature"] is not None:
            sides = (
                ", ".join(
                    f"`{one['name']}` {one['datatype']} {_shape(one['shape'])}" for one in golden["signature"][side]
                )
                for side in ("inputs", "outputs")
            )
            sentences.append(f"`{name}`: tensors as its clients know them: " + " gives ".join(sides))
        sentences += [f"`{name}`: no golden example of {why}" for why in golden["left_out"]]
    yield Items(sentences)


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join('any' if size < 0 else str(size) for size in shape)})"


def _notes(document: Mapping[str, Any]) -> Iterator[Block]:
    if document["notes"]:
        yield Heading("Notes")
        yield Items(document["notes"])
