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

from marway.archives.rules import NOT_SERVED, Calling, calling_of, sequence_problem
from marway.archives.sequences import SEQUENCE_KEYS, SequenceSettings, sequences_of
from marway.errors import InvalidArchive, clip
from marway_archiver.contents.yaml_document import Wrong, composed

__all__ = ["ModelConfig", "parse_model_config"]

_DAY_S = 86_400
_TIMEOUT_S = 120  # of an archive that has a file which does not say
_SLIP = 0.85  # how alike a key and a known one are that are probably the same
_PLAIN_INT = re.compile(r"-?(0|[1-9][0-9]{0,9})")


_ONE = Calling()


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
        calling: How the handler is called: one call at a time, many at once, or all rows again and again.
        sequences: How it keeps sequences, if it does.
        warnings: What is allowed but surprises.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int | None = None
    response_timeout_s: int = _TIMEOUT_S
    startup_timeout_s: int = _TIMEOUT_S
    device_type: str | None = None
    calling: Calling = _ONE
    sequences: SequenceSettings | None = None
    warnings: tuple[str, ...] = ()


class _Rule(NamedTuple):
    """Whether a key's value is one that it may have, and what that is."""

    holds: Callable[[yaml.Node], bool]
    wanted: str

    def check(self, key: str, node: yaml.Node) -> None:
        if not self.holds(node):
            raise Wrong(node, f"{key} must be {self.wanted}, not {_text(node)}")


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
    "asyncCommunication": _BOOLEAN,
    "continuousBatching": _BOOLEAN,
    "sequenceBatching": _BOOLEAN,
    **{key: _number(*bounds) for key, bounds in SEQUENCE_KEYS.items()},
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
    except Wrong as exc:
        raise InvalidArchive(f"{label}:{exc.line + 1}: {exc}") from exc


def _parsed(data: bytes, label: str) -> ModelConfig:
    root = composed(data)
    if not isinstance(root, yaml.MappingNode):
        raise Wrong(0, "holds no settings: it must be a mapping such as 'responseTimeout: 60'")
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
            raise Wrong(keys[one], f"{one} without {other} is ignored by TorchServe: give both or neither")
    low, high, batch, delay = map(number, ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"))
    if low is not None and high is not None and low > high:
        message = f"minWorkers {low} is more than maxWorkers {high}: TorchServe would ignore both"
        raise Wrong(keys["minWorkers"], message)
    sequences = _sequences(keys, values)
    if low is not None and (low, high) != (1, 1) and sequences is None:
        warnings.append(f"{label}: minWorkers {low}: TorchServe starts them at load, whatever the serving settings say")
    ways = {key: values.get(key, "").lower() == "true" for key in ("asyncCommunication", "continuousBatching")}
    if all(ways.values()):
        message = "asyncCommunication and continuousBatching: TorchServe would pass over the second; say one"
        raise Wrong(keys["continuousBatching"], message)
    calling = calling_of({**ways, "batchSize": batch})
    if batch is not None and batch > 1 and calling.way != "continuous" and sequences is None:
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
        calling=calling,
        sequences=sequences,
        warnings=tuple(warnings),
    )


def _sequences(keys: dict[str, yaml.Node], values: dict[str, str]) -> SequenceSettings | None:
    declared = {key: text.lower() == "true" if _RULES[key] is _BOOLEAN else text for key, text in values.items()}
    if declared.get("sequenceBatching") is not True:
        for key in SEQUENCE_KEYS.keys() & keys.keys():
            raise Wrong(keys[key], f"{key} says nothing without sequenceBatching: true")
        return None
    if (problem := sequence_problem(declared)) is not None:
        raise Wrong(keys["sequenceBatching"], problem)
    numbers = {key: int(values[key]) for key in (*SEQUENCE_KEYS, "batchSize", "maxWorkers") if key in values}
    return sequences_of({"sequenceBatching": True, **numbers})


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
    raise Wrong(node, f"{key} is not served by Marway: {NOT_SERVED[key].why}")
