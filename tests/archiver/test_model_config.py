from __future__ import annotations

import pytest

from marway.errors import InvalidArchive
from marway_archiver.model_config import ModelConfig, parse_model_config

REFUSED = {
    "typo": ("maxWorkers: 1\nminWorker: 1\n", "c.yaml:2: TorchServe knows no setting 'minWorker' here: did you mean"),
    "unknown": ("mine: 1\n", "c.yaml:1: TorchServe knows no setting 'mine' here: what your own handler reads goes"),
    "min only": ("minWorkers: 1\n", "c.yaml:1: minWorkers without maxWorkers is ignored"),
    "max only": ("a: 1\nmaxWorkers: 1\n", "c.yaml:1:"),
    "min over max": ("maxWorkers: 1\nminWorkers: 2\n", "c.yaml:2: minWorkers 2 is more than maxWorkers 1"),
    "zero workers": ("minWorkers: 0\nmaxWorkers: 1\n", "c.yaml:1: minWorkers must be a whole number from 1"),
    "quoted": ("batchSize: '4'\n", "c.yaml:1: batchSize must be a whole number"),
    "octal": ("batchSize: 010\n", "must be a whole number"),
    "underscore": ("batchSize: 1_000\n", "must be a whole number"),
    "float": ("responseTimeout: 1.5\n", "must be a whole number"),
    "time-out zero": ("\n\nresponseTimeout: 0\n", "c.yaml:3: responseTimeout must be"),
    "boolean": ("useVenv: yes please\n", "must be true or false"),
    "device": ("deviceType: tpu\n", "deviceType must be one of cpu, gpu"),
    "device ids": ("deviceIds: [0, x]\n", "deviceIds must be a whole number"),
    "no device ids": ("deviceIds: []\n", "must be a list of GPU numbers"),
    "parallel alone": ("parallelType: tp\n", "parallelType without parallelLevel is ignored"),
    "torchrun alone": ("torchrun:\n  nproc-per-node: 2\n", "torchrun without parallelType is ignored"),
    "torchrun key": ("parallelType: tp\ntorchrun:\n  nproc_per_node: 2\n", "c.yaml:3: TorchServe knows no setting"),
    "torchrun option": ("parallelType: tp\ntorchrun:\n  rdzv-conf: --x\n", "c.yaml:3: torchrun.rdzv-conf must be"),
    "torchrun nodes": ("parallelType: tp\ntorchrun:\n  nnodes: 2\n", "torchrun.nnodes must be"),
    "sequences": ("sequenceBatching: true\n", "c.yaml:1: sequenceBatching is not served by Marway"),
    "handler text": ("handler: x\n", "handler must be a mapping"),
    "twice": ("batchSize: 1\nbatchSize: 2\n", "c.yaml:2: 'batchSize' is given twice"),
    "twice below": ("handler:\n  a: 1\n  a: 2\n", "c.yaml:3: 'a' is given twice"),
    "tag": ("handler: !!python/object/apply:os.system [id]\n", "c.yaml:1: the tag 'tag:yaml.org,2002:python/"),
    "own tag": ("handler:\n  x: !mine 1\n", "c.yaml:2: the tag '!mine' is not accepted"),
    "alias": ("handler:\n  a: &a [1]\n  b: *a\n", "c.yaml:2: anchors and aliases"),
    "merge": ("handler:\n  <<: {a: 1}\n", "c.yaml:2: merge keys"),
    "syntax": ("a: 1\nb: [\n", "c.yaml:3:"),
    "tab": ("handler:\n\ta: 1\n", "c.yaml:2:"),
    "two documents": ("batchSize: 1\n---\nbatchSize: 2\n", "c.yaml:2:"),
    "directive": ("%YAML 1.1\n---\nbatchSize: 1\n", "directives"),
    "list": ("- 1\n", "holds no settings"),
    "empty": ("# nothing\n", "holds no settings"),
    "bom": ("\ufeffbatchSize: 1\n", "byte order mark"),
    "control": ("handler:\n  a: \x01\n", "c.yaml:2: holds a character"),
    "date": ("handler:\n  a: 2024-99-99\n", "c.yaml:2: '2024-99-99' is no value"),
    "deep": ("handler: " + "[" * 40 + "]" * 40, "nested deeper than 32"),
    "very deep": ("handler: " + "{a: " * 15_000, "nested deeper than 32"),
    "large": ("#" * 70_000, "has 70000 bytes"),
    "list as key": ("? [1]\n: 2\n", "cannot be a key"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_line(text: str, message: str) -> None:
    """A setting that TorchServe would ignore, misread or not know is refused, with file and line."""
    with pytest.raises(InvalidArchive) as caught:
        parse_model_config(text.encode(), "c.yaml")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_bytes_that_are_no_text_are_refused() -> None:
    """A file that is not UTF-8 is refused, with the line of the first such byte."""
    with pytest.raises(InvalidArchive, match=r"c\.yaml:2: is not UTF-8"):
        parse_model_config(b"batchSize: 1\n# \xff\n", "c.yaml")


def test_settings_are_read() -> None:
    """What the frontend takes is returned; absent time-outs are TorchServe's 120 s."""
    text = """
    minWorkers: 1
    maxWorkers: 1
    responseTimeout: 300
    deviceType: gpu
    deviceIds: [0, 1]
    parallelType: tp
    torchrun: {nproc-per-node: 2, OMP_NUMBER_THREADS: 4}
    continuousBatching: true
    pt2: {compile: {enable: True, backend: inductor}}
    handler: {anything: [1, {a: 2.5, when: 2024-01-01}], on: null}
    """
    config = parse_model_config(text.encode(), "c.yaml")
    expected = ModelConfig(
        min_workers=1, max_workers=1, response_timeout_s=300, device_type="gpu", plain_worker=True, streaming=True
    )
    assert config == expected
    assert config.startup_timeout_s == 120


def test_what_surprises_is_a_warning() -> None:
    """More than one worker or row is allowed, with a line on what TorchServe makes of it."""
    config = parse_model_config(b"minWorkers: 2\nmaxWorkers: 4\nbatchSize: 8\n", "c.yaml")
    assert [warning.split(":")[1].strip() for warning in config.warnings] == ["minWorkers 2", "batchSize 8"]
