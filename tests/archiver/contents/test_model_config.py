from __future__ import annotations

import pytest

from marway.archives.rules import NOT_SERVED, Calling
from marway.archives.sequences import SequenceSettings
from marway.errors import InvalidArchive
from marway_archiver.contents.model_config import ModelConfig, parse_model_config

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 6)}]\n" for n in range(1, 9)
)
REFUSED = {
    "min only": ("minWorkers: 1\n", "c.yaml:1: minWorkers without maxWorkers is ignored"),
    "max only": ("a: 1\nmaxWorkers: 1\n", "c.yaml:2: maxWorkers without minWorkers is ignored"),
    "min over max": ("maxWorkers: 1\nminWorkers: 2\n", "c.yaml:2: minWorkers 2 is more than maxWorkers 1"),
    "zero workers": ("minWorkers: 0\nmaxWorkers: 1\n", "c.yaml:1: minWorkers must be a whole number from 1"),
    "quoted": ("batchSize: '4'\n", "c.yaml:1: batchSize must be a whole number"),
    "octal": ("batchSize: 010\n", "must be a whole number"),
    "underscore": ("batchSize: 1_000\n", "must be a whole number"),
    "float": ("responseTimeout: 1.5\n", "must be a whole number"),
    "time-out zero": ("\n\nresponseTimeout: 0\n", "c.yaml:3: responseTimeout must be"),
    "boolean": ("useJobTicket: yes please\n", "must be true or false"),
    "device": ("deviceType: tpu\n", "deviceType must be one of cpu, gpu"),
    "device ids": ("deviceIds: [0, x]\n", "deviceIds must be a whole number"),
    "no device ids": ("deviceIds: []\n", "must be a list of GPU numbers"),
    "parallel": ("parallelType: tp\n", "c.yaml:1: parallelType is not served by Marway: torchrun would start several"),
    "parallel level": ("parallelLevel: 1\n", "c.yaml:1: parallelLevel is not served"),
    "torchrun": ("minWorkers: 1\nmaxWorkers: 1\ntorchrun: {nproc-per-node: 2}\n", "c.yaml:3: torchrun is not served"),
    "continuous": ("continuousBatching: on\n", "c.yaml:1: continuousBatching must be true or false"),
    "async": ("asyncCommunication: 1\n", "c.yaml:1: asyncCommunication must be true or false"),
    "async and continuous": (
        "asyncCommunication: true\ncontinuousBatching: true\n",
        "c.yaml:2: asyncCommunication and continuousBatching: TorchServe would pass over the second",
    ),
    "venv": ("useVenv: true\n", "c.yaml:1: useVenv is not served by Marway: a worker of a virtual environment"),
    "sequences and async": (
        "asyncCommunication: true\nsequenceBatching: true\n",
        "c.yaml:2: its configuration file says sequenceBatching and asyncCommunication, of which Marway serves one",
    ),
    "sequence setting alone": ("maxNumSequence: 4\n", "c.yaml:1: maxNumSequence says nothing without sequenceBatching"),
    "idle for no time": ("sequenceBatching: true\nsequenceMaxIdleMSec: 0\n", "c.yaml:2: sequenceMaxIdleMSec must be"),
    "handler text": ("handler: x\n", "handler must be a mapping"),
    "twice": ("batchSize: 1\nbatchSize: 2\n", "c.yaml:2: 'batchSize' is given twice"),
    "twice below": ("handler:\n  a: 1\n  a: 2\n", "c.yaml:3: 'a' is given twice"),
    "tag": ("handler: !!python/object/apply:os.system [id]\n", "c.yaml:1: the tag 'tag:yaml.org,2002:python/"),
    "own tag": ("handler:\n  x: !mine 1\n", "c.yaml:2: the tag '!mine' is not accepted"),
    "billion laughs": (LAUGHS, "expand to more than 50000 values"),
    "many aliases": ("a: &a 1\nb: [" + "*a, " * 51 + "]\n", "c.yaml:2: has more than 50 aliases"),
    "holds itself": ("a: &a [*a]\n", "c.yaml:1: holds itself"),
    "deep by aliases": ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "deeper than 32"),
    "no such anchor": ("a: *b\n", "c.yaml:1: found undefined alias"),
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
    continuousBatching: false
    useVenv: false
    pt2: {compile: {enable: True, backend: inductor}}
    handler: {anything: [1, {a: 2.5, when: 2024-01-01}], on: null}
    """
    config = parse_model_config(text.encode(), "c.yaml")
    expected = ModelConfig(min_workers=1, max_workers=1, response_timeout_s=300, device_type="gpu")
    assert config == expected
    assert config.startup_timeout_s == 120


def test_how_the_handler_is_called_is_read() -> None:
    """One call at a time, many at once, or all rows again and again: then the batch is the worker's, without a wait."""
    assert parse_model_config(b"batchSize: 1\n", "c.yaml").calling == Calling()
    assert parse_model_config(b"asyncCommunication: true\n", "c.yaml").calling.way == "async"
    config = parse_model_config(b"continuousBatching: true\nbatchSize: 8\n", "c.yaml")
    assert (config.calling, config.warnings) == (Calling("continuous", 8), ())


def test_what_surprises_is_a_warning() -> None:
    """More than one worker or row is allowed, with a line on what TorchServe makes of it."""
    config = parse_model_config(b"minWorkers: 2\nmaxWorkers: 4\nbatchSize: 8\n", "c.yaml")
    assert [warning.split(":")[1].strip() for warning in config.warnings] == ["minWorkers 2", "batchSize 8"]


def test_keys_of_the_handlers_own_are_accepted() -> None:
    """What TorchServe does not know is the handler's, as are anchors; a slip of the pen is said."""
    config = parse_model_config(
        b"minWorkers: 1\nmaxWorkers: 1\nmy_threshold: 0.25\nlabels: [cat, dog]\n"
        b"handler:\n  base: &b {a: 1}\n  other: *b\n",
        "c.yaml",
    )
    assert config == ModelConfig(min_workers=1, max_workers=1)
    config = parse_model_config(b"respnseTimeout: 5\n", "c.yaml")
    (warning,) = config.warnings
    assert warning.startswith("c.yaml:1: TorchServe knows no setting 'respnseTimeout': did you mean responseTimeout?")
    assert config.response_timeout_s == 120


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", None),
        ("sequenceBatching: false\n", None),
        ("sequenceBatching: true\n", SequenceSettings()),
        ("sequenceBatching: true\nsequenceTimeoutMSec: 0\nmaxNumSequence: 1\n", SequenceSettings(max_live=1)),
        (
            "sequenceBatching: true\nminWorkers: 2\nmaxWorkers: 2\nbatchSize: 4\nsequenceMaxIdleMSec: 5000\n"
            "sequenceTimeoutMSec: 90000\nmaxSequenceJobQueueSize: 10\n",
            SequenceSettings(idle_s=5, timeout_s=90, max_live=8, max_waiting=10),
        ),
    ],
)
def test_how_sequences_are_kept(text: str, settings: SequenceSettings | None) -> None:
    """TorchServe's settings of sequences are read as it reads them, and cause no warning."""
    found = parse_model_config(f"x: 1\n{text}".encode(), "c.yaml")
    assert (found.sequences, found.warnings) == (settings, ())


def test_what_is_not_served_is_said_with_nothing_else_lost() -> None:
    """Every setting that is refused has a reason, and is refused by its name whatever its value is."""
    for key in NOT_SERVED:
        with pytest.raises(InvalidArchive, match=f"{key} is not served by Marway: "):
            parse_model_config(f"{key}: {{a: 1}}\n".encode(), "c.yaml")
