"""The model configuration file (`--config-file`): known keys are checked, every error with its line.

TorchServe logs a warning for a value it does not like and goes on with another. An archive's configuration also beats
what its register call asks for. So here a key that TorchServe 0.12 knows has a value that it uses as it stands
(`ModelConfig.build` of its Java frontend), or the file is refused:

- `minWorkers` and `maxWorkers` come together, 1 <= min <= max: else TorchServe ignores both;
- what Marway cannot serve is refused by name (`NOT_SERVED`): every prediction would fail or be wrong;
- all other keys are the handler's own, as TorchServe's documentation has it; one that looks like a slip of the pen
  for a known key is accepted with a warning.

Anchors and aliases are accepted within bounds. Tags and merge keys are refused, as is a file that two YAML parsers
might read differently; what is left, PyYAML (the worker) and SnakeYAML (the frontend) read alike.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from marway.archives.unsupported_settings import NOT_SERVED
from marway.errors import clip
from marway_archiver.strict_yaml import YamlFile

__all__ = ["MAX_CONFIG_BYTES", "ModelConfig", "parse_model_config"]

MAX_CONFIG_BYTES = 64 * 1024
_INT32 = 2**31 - 1
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


Value = int | bool | str | None
Rule = Callable[[YamlFile, str, yaml.Node], Value]


def _text(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return clip(repr(node.value), 60)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _number(low: int, high: int) -> Rule:
    def rule(file: YamlFile, key: str, node: yaml.Node) -> int:
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and node.tag.endswith(":int")
        if not plain or not _PLAIN_INT.fullmatch(node.value) or not low <= int(node.value) <= high:
            raise file.fail(node, f"{key} must be a whole number from {low} to {high}, not {_text(node)}")
        return int(node.value)

    return rule


def _boolean(file: YamlFile, key: str, node: yaml.Node) -> bool:
    if not isinstance(node, yaml.ScalarNode) or node.style or node.value.lower() not in {"true", "false"}:
        raise file.fail(node, f"{key} must be true or false, not {_text(node)}")
    return bool(node.value.lower() == "true")


def _choice(*choices: str) -> Rule:
    def rule(file: YamlFile, key: str, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.value not in choices:
            raise file.fail(node, f"{key} must be one of {', '.join(choices)}, not {_text(node)}")
        return str(node.value)

    return rule


def _device_ids(file: YamlFile, key: str, node: yaml.Node) -> None:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise file.fail(node, f"{key} must be a list of GPU numbers, such as [0, 1], not {_text(node)}")
    for item in node.value:
        _number(0, 1023)(file, key, item)


def _mapping(file: YamlFile, key: str, node: yaml.Node) -> None:
    if not isinstance(node, yaml.MappingNode):
        raise file.fail(node, f"{key} must be a mapping, not {_text(node)}")


def _text_or_mapping(file: YamlFile, key: str, node: yaml.Node) -> None:
    if not isinstance(node, yaml.MappingNode) and not node.tag.endswith(":str"):
        raise file.fail(node, f"{key} must be a compile backend's name or a mapping, not {_text(node)}")


def _not_served(file: YamlFile, key: str, node: yaml.Node) -> Value:
    boolean = isinstance(node, yaml.ScalarNode) and node.tag.endswith(":bool")
    if NOT_SERVED[key].off and boolean and not _boolean(file, key, node):
        return False
    raise file.fail(node, f"{key} is not served by Marway: {NOT_SERVED[key].why}")


_RULES: dict[str, Rule] = {
    "minWorkers": _number(1, 1024),
    "maxWorkers": _number(1, 1024),
    "batchSize": _number(1, 65_536),
    "maxBatchDelay": _number(0, 600_000),
    "responseTimeout": _number(1, _DAY_S),
    "startupTimeout": _number(1, _DAY_S),
    "maxRetryTimeoutInSec": _number(1, _DAY_S),
    "clientTimeoutInMills": _number(0, _INT32),
    "jobQueueSize": _number(1, 1_000_000),
    "useJobTicket": _boolean,
    "deviceType": _choice("cpu", "gpu"),
    "deviceIds": _device_ids,
    "handler": _mapping,
    "pt2": _text_or_mapping,
    "pippy": _mapping,
    "deepspeed": _mapping,
    "dali": _mapping,
    "micro_batching": _mapping,
    **dict.fromkeys(NOT_SERVED, _not_served),
}


def parse_model_config(data: bytes, label: str) -> ModelConfig:
    """Check a model configuration file.

    Args:
        data: The file's content.
        label: Its name, for messages.

    Raises:
        InvalidArchive: `LABEL:LINE: what is wrong`.
    """
    file = YamlFile(label, MAX_CONFIG_BYTES)
    root = file.compose(data)
    if not isinstance(root, yaml.MappingNode):
        raise file.fail_at(0, "holds no settings: it must be a mapping such as 'responseTimeout: 60'")
    lines: dict[str, yaml.Node] = {}
    values: dict[str, Value] = {}
    warnings: list[str] = []
    for name, node in root.value:
        key = name.value
        lines[key] = name
        if key in _RULES:
            values[key] = _RULES[key](file, key, node)
        elif near := difflib.get_close_matches(key, _RULES, n=1, cutoff=_SLIP):
            line = name.start_mark.line + 1
            warnings.append(
                f"{file.label}:{line}: TorchServe knows no setting {_text(name)}: did you mean {near[0]}? It is left "
                "to the handler"
            )
    return _settings(file, lines, values, warnings)


def _settings(file: YamlFile, keys: dict[str, yaml.Node], values: dict[str, Value], noticed: list[str]) -> ModelConfig:
    def number(key: str) -> int | None:
        value = values.get(key)
        return value if isinstance(value, int) else None

    for one, other in (("minWorkers", "maxWorkers"), ("maxWorkers", "minWorkers")):
        if one in keys and other not in keys:
            raise file.fail(keys[one], f"{one} without {other} is ignored by TorchServe: give both or neither")
    low, high = number("minWorkers"), number("maxWorkers")
    if low is not None and high is not None and low > high:
        message = f"minWorkers {low} is more than maxWorkers {high}: TorchServe would ignore both"
        raise file.fail(keys["minWorkers"], message)
    warnings: list[str] = []
    if low is not None and (low, high) != (1, 1):
        warnings.append(f"minWorkers {low}: TorchServe starts them at load, whatever the serving settings say")
    batch = number("batchSize")
    if batch is not None and batch > 1:
        delay = number("maxBatchDelay")
        warnings.append(
            f"batchSize {batch}: TorchServe lets a request wait up to {100 if delay is None else delay} ms for "
            "others; without it, Marway batches what waits anyway, with no delay"
        )
    return ModelConfig(
        min_workers=low,
        max_workers=high,
        batch_size=batch,
        max_batch_delay_ms=number("maxBatchDelay"),
        response_timeout_s=number("responseTimeout") or _TIMEOUT_S,
        startup_timeout_s=number("startupTimeout") or _TIMEOUT_S,
        device_type=str(values["deviceType"]) if "deviceType" in values else None,
        warnings=(*noticed, *(f"{file.label}: {warning}" for warning in warnings)),
    )
