"""The model configuration file (`--config-file`): known keys are checked, every error with its line.

TorchServe logs a warning for a value it does not like and goes on with another. An archive's configuration also beats
what its register call asks for. So here a key that TorchServe 0.12 knows has a value that it uses as it stands
(`ModelConfig.build` of its Java frontend), or the file is refused:

- `minWorkers` and `maxWorkers` come together, 1 <= min <= max: else TorchServe ignores both;
- what Marway cannot serve is refused by name (`NOT_SERVED`): every prediction would fail or be wrong;
- all other keys are the handler's own, as TorchServe's documentation has it; one that looks like a slip of the pen
  for a known key is accepted with a warning.

The file is YAML that every parser reads alike, PyYAML (the worker) and SnakeYAML (the frontend) too: one document, no
tags, no merge keys, no key twice. Anchors and aliases are accepted while what they expand to stays small: a few lines
of them can stand for more values than there is memory ("billion laughs"), which whoever copies or prints them would
find out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from marway.archives.limits import NOT_SERVED
from marway.errors import InvalidArchive, clip

__all__ = ["MAX_CONFIG_BYTES", "ModelConfig", "parse_model_config"]

MAX_CONFIG_BYTES = 64 * 1024
_MAX_ALIASES = 50
"""Most aliases (`*name`); SnakeYAML takes no more that stand for lists or mappings."""
_MAX_NODES = 50_000
"""Most values that the document may expand to; without an alias a file of 64 KiB has fewer."""
_MAX_DEPTH = 32
"""Deepest nesting of lists and mappings."""
_DAY_S = 86_400
_TIMEOUT_S = 120  # of an archive that has a file which does not say
_SLIP = 0.85  # how alike a key and a known one are that are probably the same
_PLAIN_INT = re.compile(r"-?(0|[1-9][0-9]{0,9})")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the frontend takes from the file; an absent key has TorchServe's value for archives with a file.

    Attributes:
        min_workers: Workers started whatever the register call asks, or None.
        max_workers: Goes with it.
        batch_size: Requests in one call of the handler, or None for the register call's.
        max_batch_delay_ms: How long a request may wait for a batch to fill, or None.
        response_timeout_s: Beats the register call's, even where the file does not say it.
        startup_timeout_s: Likewise.
        device_type: `cpu`, `gpu` or None.
        warnings: What is allowed but surprises.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int | None = None
    response_timeout_s: int = _TIMEOUT_S
    startup_timeout_s: int = _TIMEOUT_S
    device_type: str | None = None
    warnings: tuple[str, ...] = ()


class _Wrong(Exception):
    """What is wrong, and the line of it, counted from 0."""

    def __init__(self, where: yaml.Node | int, message: str) -> None:
        super().__init__(message)
        self.line = where if isinstance(where, int) else where.start_mark.line


class _Rule(NamedTuple):
    """Whether a key's value is one that it may have, and what that is."""

    holds: Callable[[yaml.Node], bool]
    wanted: str

    def check(self, key: str, node: yaml.Node) -> None:
        if not self.holds(node):
            raise _Wrong(node, f"{key} must be {self.wanted}, not {_text(node)}")


def _number(low: int, high: int) -> _Rule:
    def holds(node: yaml.Node) -> bool:
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and node.tag.endswith(":int")
        return plain and bool(_PLAIN_INT.fullmatch(node.value)) and low <= int(node.value) <= high

    return _Rule(holds, f"a whole number from {low} to {high}")


def _text(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return clip(repr(node.value), 60)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


_BOOLEAN = _Rule(
    lambda node: isinstance(node, yaml.ScalarNode) and not node.style and node.value.lower() in {"true", "false"},
    "true or false",
)
_DEVICE = _Rule(lambda node: isinstance(node, yaml.ScalarNode) and node.value in {"cpu", "gpu"}, "one of cpu, gpu")
_GPUS = _Rule(
    lambda node: isinstance(node, yaml.SequenceNode) and bool(node.value), "a list of GPU numbers, such as [0, 1]"
)
_MAPPING = _Rule(lambda node: isinstance(node, yaml.MappingNode), "a mapping")
_TEXT_OR_MAPPING = _Rule(
    lambda node: isinstance(node, yaml.MappingNode) or node.tag.endswith(":str"),
    "a compile backend's name or a mapping",
)
_RULES: dict[str, _Rule | None] = {
    "minWorkers": _number(1, 1024),
    "maxWorkers": _number(1, 1024),
    "batchSize": _number(1, 65_536),
    "maxBatchDelay": _number(0, 600_000),
    "responseTimeout": _number(1, _DAY_S),
    "startupTimeout": _number(1, _DAY_S),
    "maxRetryTimeoutInSec": _number(1, _DAY_S),
    "clientTimeoutInMills": _number(0, 2**31 - 1),
    "jobQueueSize": _number(1, 1_000_000),
    "useJobTicket": _BOOLEAN,
    "deviceType": _DEVICE,
    "deviceIds": _GPUS,
    "handler": _MAPPING,
    "pt2": _TEXT_OR_MAPPING,
    "pippy": _MAPPING,
    "deepspeed": _MAPPING,
    "dali": _MAPPING,
    "micro_batching": _MAPPING,
    **dict.fromkeys(NOT_SERVED),
}


def parse_model_config(data: bytes, label: str) -> ModelConfig:
    """Check a model configuration file.

    Args:
        data: The file's content.
        label: Its name, for messages.

    Raises:
        InvalidArchive: `LABEL:LINE: what is wrong`.
    """
    try:
        return _parsed(data, label)
    except _Wrong as exc:
        raise InvalidArchive(f"{label}:{exc.line + 1}: {exc}") from exc


def _parsed(data: bytes, label: str) -> ModelConfig:
    root = _compose(data)
    if not isinstance(root, yaml.MappingNode):
        raise _Wrong(0, "holds no settings: it must be a mapping such as 'responseTimeout: 60'")
    keys: dict[str, yaml.Node] = {}
    values: dict[str, str] = {}
    warnings: list[str] = []
    for name, node in root.value:
        key = name.value
        keys[key] = name
        if key in _RULES:
            _check(key, node)
            values[key] = node.value
        elif near := difflib.get_close_matches(key, _RULES, n=1, cutoff=_SLIP):
            warnings.append(
                f"{label}:{name.start_mark.line + 1}: TorchServe knows no setting {_text(name)}: did you mean "
                f"{near[0]}? It is left to the handler"
            )

    def number(key: str) -> int | None:
        return int(values[key]) if key in values else None

    for one, other in (("minWorkers", "maxWorkers"), ("maxWorkers", "minWorkers")):
        if one in keys and other not in keys:
            raise _Wrong(keys[one], f"{one} without {other} is ignored by TorchServe: give both or neither")
    low, high, batch, delay = map(number, ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"))
    if low is not None and high is not None and low > high:
        message = f"minWorkers {low} is more than maxWorkers {high}: TorchServe would ignore both"
        raise _Wrong(keys["minWorkers"], message)
    if low is not None and (low, high) != (1, 1):
        warnings.append(f"{label}: minWorkers {low}: TorchServe starts them at load, whatever the serving settings say")
    if batch is not None and batch > 1:
        warnings.append(
            f"{label}: batchSize {batch}: TorchServe lets a request wait up to {100 if delay is None else delay} ms "
            "for others; without it, Marway batches what waits anyway, with no delay"
        )
    return ModelConfig(
        min_workers=low,
        max_workers=high,
        batch_size=batch,
        max_batch_delay_ms=delay,
        response_timeout_s=number("responseTimeout") or _TIMEOUT_S,
        startup_timeout_s=number("startupTimeout") or _TIMEOUT_S,
        device_type=values.get("deviceType"),
        warnings=tuple(warnings),
    )


def _check(key: str, node: yaml.Node) -> None:
    rule = _RULES[key]
    if rule is not None:
        rule.check(key, node)
        for item in node.value if rule is _GPUS else ():
            _number(0, 1023).check(key, item)
        return
    if NOT_SERVED[key].off and isinstance(node, yaml.ScalarNode) and node.tag.endswith(":bool"):
        _BOOLEAN.check(key, node)
        if node.value.lower() == "false":
            return
    raise _Wrong(node, f"{key} is not served by Marway: {NOT_SERVED[key].why}")


def _compose(data: bytes) -> yaml.Node | None:
    """Return the root of the document ``data``, none of whose parts is tagged, named twice or holds itself."""
    if len(data) > MAX_CONFIG_BYTES:
        raise _Wrong(0, f"has {len(data)} bytes: at most {MAX_CONFIG_BYTES} are accepted")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise _Wrong(data.count(b"\n", 0, exc.start), "is not UTF-8") from exc
    if text.startswith("\ufeff"):
        raise _Wrong(0, "begins with a byte order mark: save it without")
    try:
        _check_events(text)
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _check_node(root, {}, set())
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position)
        raise _Wrong(line, "holds a character that YAML does not allow") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise _Wrong(mark.line if mark else 0, clip(exc.problem or "is not YAML", 200)) from exc
    return root


def _check_events(text: str) -> None:
    """Refuse what composing would take in, or be overcome by: tags, directives, many aliases and deep nesting."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line if event.start_mark else 0
        aliases += isinstance(event, yaml.AliasEvent)
        if aliases > _MAX_ALIASES:
            raise _Wrong(line, f"has more than {_MAX_ALIASES} aliases (*): write the values out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _Wrong(line, f"the tag {clip(repr(tag), 80)} is not accepted")
        if isinstance(event, yaml.DocumentStartEvent) and (event.tags or event.version):
            raise _Wrong(line, "directives (%) are not accepted")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _Wrong(line, f"is nested deeper than {_MAX_DEPTH} levels")


def _check_node(node: yaml.Node, seen: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return how many values ``node`` expands to and how deep they lie; ``above`` are the nodes that hold it."""
    key = id(node)
    if key in above:
        raise _Wrong(node, "holds itself by an alias (*)")
    if key in seen:
        return seen[key]
    size, depth = 1, 0
    if isinstance(node, yaml.CollectionNode):
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        above.add(key)
        for item in node.value:
            for each in item if isinstance(item, tuple) else (item,):
                its_size, its_depth = _check_node(each, seen, above)
                size, depth = size + its_size, max(depth, its_depth)
        above.discard(key)
        depth += 1
    else:
        try:
            yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, OverflowError) as exc:  # such as the date 2024-99-99
            raise _Wrong(node, f"{clip(repr(node.value), 80)} is no value: {clip(str(exc), 120)}") from exc
    if depth > _MAX_DEPTH:
        raise _Wrong(node, f"is nested deeper than {_MAX_DEPTH} levels")
    if size > _MAX_NODES:
        raise _Wrong(node, f"its aliases (*) expand to more than {_MAX_NODES} values")
    seen[key] = size, depth
    return size, depth


def _check_keys(node: yaml.MappingNode) -> None:
    keys: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Wrong(key, "a list or a mapping cannot be a key here")
        if key.tag.endswith(":merge"):
            raise _Wrong(key, "merge keys (<<) are not accepted: write the values out")
        if key.value in keys:
            raise _Wrong(key, f"{clip(repr(key.value), 80)} is given twice")
        keys.add(key.value)
