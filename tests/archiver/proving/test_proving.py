from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marway.answers.golden import ExampleInput, Tolerance, decode_golden
from marway.errors import InvalidArchive, LoadFailed
from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import Example, PackedArchive, ProofPlan, check_archive, pack, publish_archive
from marway_archiver.archives import inspect_archive, opened_archive, repack
from marway_archiver.progress import Phases
from marway_archiver.proving.examples import encode_all
from marway_archiver.proving.runs import Run, check_run, run_examples

Child = Callable[..., "subprocess.Popen[str]"]
Pack = Callable[..., PackedArchive]

ECHO = "def handle(data, context):\n    return [{'got': row['data']} for row in data or []]\n"
TWO: list[Any] = ["one", "two"]


@pytest.fixture
def proved(tmp_path: Path) -> Pack:
    """Packs a handler's source with examples into `tmp_path`."""

    def run(source: str, examples: list[Any], **changes: Any) -> PackedArchive:
        handler = tmp_path / "its_handler.py"
        handler.write_text(source)
        arguments: dict[str, Any] = {
            "model_name": "m", "version": "1", "handler": str(handler), "export_path": tmp_path, "force": True,
        }  # fmt: skip
        return pack(**arguments, examples=examples, **changes)

    return run


def values(packed: PackedArchive) -> list[Any]:
    assert packed.golden is not None
    return [each.answer.value for each in packed.golden.examples]


def test_a_handler_sees_rows_as_torchserves_rest_front_end_builds_them(proved: Pack) -> None:
    """JSON is parsed and text is str for those content types only; everything is under `data`, with its headers."""
    source = """\
def handle(data, context):
    return [
        {
            "row": {name: f"{type(value).__name__} {bytes(value) if isinstance(value, bytearray) else value}"
                    for name, value in row.items()},
            "header": context.get_request_header(index, "content-type"),
            "part": context.get_request_header(index, "data"),
            "id": context.get_request_id(index)[:8],
            "model": context.model_name,
            "directory": context.system_properties["model_dir"] == __file__.rpartition("/")[0],
            "gpu": context.system_properties["gpu_id"],
        }
        for index, row in enumerate(data or [])
    ]
"""
    packed = proved(
        source,
        [
            "text",
            {"a": [1]},
            Example("{}", content_type="text/html; charset=utf-8"),
            Example(b'{"a":1}', content_type="application/json;charset=utf-8"),
            Example(b'{"a":', content_type="application/json"),
            Example(b"\xff", content_type="text/plain"),
            b"[1]",
        ],
    )
    found = values(packed)
    assert [each["row"]["data"] for each in found] == [
        "str text",
        "dict {'a': [1]}",
        "str {}",
        "dict {'a': 1}",
        "bytearray b'{\"a\":'",
        "bytearray b'\\xff'",
        "bytearray b'[1]'",
    ]
    assert found[2]["header"] == "text/html; charset=utf-8"
    assert found[2]["part"] == {"content-type": "text/html"}
    assert {(each["model"], each["id"], each["directory"], each["gpu"]) for each in found} == {
        ("m", "request-", True, None)
    }


def test_a_proved_archive_carries_inputs_and_comes_with_answers_and_proof(proved: Pack, tmp_path: Path) -> None:
    """Inputs are in the archive's bytes, answers and what was proved in the golden document, versions in the proof."""
    packed = proved(ECHO, TWO, golden_file=tmp_path / "m.golden.json")
    assert values(packed) == [{"got": "one"}, {"got": "two"}]
    assert packed.golden is not None
    assert packed.proof is not None
    assert (packed.golden.batch, packed.golden.batch_reason) == (True, None)
    assert packed.golden.batch_sizes == (2, 3, 4, 8, 16, 32)
    assert packed.golden.archive_sha256 == packed.proof.archive_sha256 == packed.sha256
    assert packed.proof.golden_sha256 == packed.golden.sha256
    assert set(packed.proof.versions) == {"torchserve", "torch", "python"}
    assert packed.proof.duration_s > 0
    assert [warning.partition(":")[0] for warning in packed.warnings] == ["all golden examples have one shape"]
    info = check_archive(packed.path)
    assert [each.data for each in info.examples] == [b"one", b"two"]
    assert info.canonical
    assert decode_golden((tmp_path / "m.golden.json").read_bytes(), source="here") == packed.golden
    again = proved(ECHO, TWO, plan=ProofPlan(max_batch_rows=32))
    assert (again.sha256, again.golden) == (packed.sha256, packed.golden)


STATES = {
    "one answer for all rows": "def handle(data, context):\n    return [{'n': len(data or [])}] * len(data or [])\n",
    "rows reversed from 4 on": (
        "def handle(data, context):\n    rows = [row['data'] for row in data or []]\n"
        "    return rows if len(rows) < 4 else rows[::-1]\n"
    ),
    "a batch of 8 raises": (
        "def handle(data, context):\n    assert len(data or []) < 8, 'too many'\n"
        "    return [row['data'] for row in data or []]\n"
    ),
    "one answer too few": "def handle(data, context):\n    return [row['data'] for row in data or []][:2]\n",
    "status of the wrong row": (
        "def handle(data, context):\n    for index, row in enumerate(data or []):\n"
        "        context.set_response_status(201 if row['data'] == 'one' else 200, '', 0)\n"
        "    return [row['data'] for row in data or []]\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "sizes", "reason"),
    [
        ("rows reversed from 4 on", [2, 3], "row 1 of a batch of 4"),
        ("a batch of 8 raises", [2, 3, 4], "status 200 was expected, 500 came (AssertionError: too many)"),
        ("one answer too few", [2], "returned 2 answers for 3 rows"),
        ("status of the wrong row", [], "row 1 of a batch of 2"),
    ],
)
def test_a_version_that_batches_wrongly_is_not_batched(proved: Pack, state: str, sizes: list[int], reason: str) -> None:
    """A batch that answers otherwise than single calls is a warning with the row, and no batching."""
    packed = proved(STATES[state], TWO)
    assert packed.golden is not None
    assert not packed.golden.batch
    assert packed.golden.batch_sizes == ()
    assert reason in str(packed.golden.batch_reason)
    assert packed.warnings == (f"requests will be served one at a time: {packed.golden.batch_reason}",)


@pytest.mark.parametrize(
    ("source", "examples", "reason"),
    [
        (ECHO, ["one", "one"], "at least 2 different golden examples"),
        (STATES["one answer for all rows"], TWO, "all golden examples have the same answer"),
    ],
)
def test_too_few_examples_prove_no_batch(proved: Pack, source: str, examples: list[Any], reason: str) -> None:
    """With fewer than two different inputs, or with equal answers, nothing could show: no batching, and why."""
    packed = proved(source, examples)
    assert packed.golden is not None
    assert not packed.golden.batch
    assert reason in packed.warnings[0]


def test_batches_go_up_to_the_rows_and_bytes_of_serving(proved: Pack) -> None:
    """The largest batch tried is the largest that will be sent, in rows and in bytes."""
    packed = proved(ECHO, TWO, plan=ProofPlan(max_batch_rows=6))
    assert packed.golden is not None
    assert packed.golden.batch_sizes == (2, 3, 4, 6)
    packed = proved(ECHO, TWO, plan=ProofPlan(max_batch_bytes=9))
    assert packed.golden is not None
    assert packed.golden.batch_sizes == (2, 3)


NOISY = """\
def handle(data, context):
    rows = data or []
    return [{"score": len(row["data"]) + len(rows) * 1e-5, "label": 3} for row in rows]
"""


def test_numbers_may_differ_within_the_tolerance(proved: Pack) -> None:
    """Sums in another order are the same answer within the tolerance, and another one outside of it."""
    examples: list[Any] = ["a", Example("abc", output={"score": 3, "label": 3})]
    assert not proved(NOISY, examples, plan=ProofPlan(tolerance=Tolerance(relative=1e-3, absolute=1e-3))).warnings
    with pytest.raises(InvalidArchive, match=r"example 2 \(abc\): .* at score: 3 was expected, 3.00001 came"):
        proved(NOISY, examples, plan=ProofPlan(tolerance=Tolerance(relative=1e-9, absolute=1e-9)))


FAILING = """\
from ts.utils.util import PredictionException


def handle(data, context):
    answers = []
    for index, row in enumerate(data or []):
        if row["data"] == "raise":
            raise PredictionException("cannot do that", 422)
        if row["data"] == "crash":
            raise ValueError("no such thing")
        if row["data"] == "set":
            context.set_response_status(400, "Bad Request", index)
        answers.append({"error": "bad input"} if row["data"] == "set" else row["data"])
    return answers
"""


FAILURES: dict[str, tuple[Any, str]] = {
    "raises": ("raise", "(raise): the handler fails with status 422: cannot do that"),
    "crashes": ("crash", "the handler fails with status 500: ValueError: no such thing"),
    "sets": ("set", 'the handler fails with status 400: {"error": "bad input"}'),
    "does not fail": (Example("fine", status=400), "status 400 was expected, 200 came: fine"),
    "differs": (Example("fine", output="good"), 'that the example gives: "good" was expected, "fine" came'),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Example], list[ExampleInput], Run]:
    """All examples that the handler fails, run once."""
    directory = tmp_path_factory.mktemp("failing")
    (directory / "its_handler.py").write_text(FAILING)
    packed = pack(model_name="m", version="1", handler=str(directory / "its_handler.py"), export_path=directory)
    given, inputs = encode_all([example for example, _ in FAILURES.values()])
    with opened_archive(packed.path) as (_, entries):
        return given, inputs, run_examples(packed.manifest, entries, inputs, ProofPlan(max_batch_rows=1))


@pytest.mark.parametrize("name", FAILURES)
def test_an_example_that_the_handler_fails_is_refused(
    name: str, failures: tuple[list[Example], list[ExampleInput], Run]
) -> None:
    """A failure, another status and another output are refused, with what came."""
    given, inputs, run = failures
    place = list(FAILURES).index(name)
    alone = replace(run, answers=run.answers[place : place + 1], unsteady=(None,))
    with pytest.raises(InvalidArchive) as caught:
        check_run(given[place : place + 1], inputs[place : place + 1], alone, Tolerance())
    assert caught.value.message.startswith("example 1 (")
    assert FAILURES[name][1] in caught.value.message


def test_nothing_is_written_for_a_refused_example(proved: Pack, tmp_path: Path) -> None:
    """A pack whose example fails leaves neither archive nor golden document."""
    with pytest.raises(InvalidArchive, match="status 422"):
        proved(FAILING, ["raise", "other"], golden_file=tmp_path / "m.golden.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["its_handler.py"]


def test_expected_failures_are_golden_answers(proved: Pack) -> None:
    """Examples may expect their status; one that the handler raises for is left out of batches."""
    packed = proved(FAILING, [Example("raise", status=422), Example("set", status=400), "fine"])
    assert packed.golden is not None
    assert [each.answer.status for each in packed.golden.examples] == [422, 400, 200]
    assert packed.golden.batch
    assert [each.status for each in check_archive(packed.path).examples] == [422, 400, None]


def test_answers_of_every_kind_are_kept(proved: Pack) -> None:
    """Text, bytes, JSON, tensors and JSON as text each keep their kind and content type."""
    source = """\
import torch


class Handler:
    def initialize(self, context):
        self.answers = {"text": "x", "bytes": b"\\xff", "json": [1.5, None], "tensor": torch.tensor([[1.0, 2.0]]),
                        "dumped": "[1.0, 2]"}

    def handle(self, data, context):
        for index, row in enumerate(data):
            if row["data"] == "dumped":
                context.set_response_content_type(index, "application/json")
        return [self.answers[row["data"]] for row in data]
"""
    names = ["text", "bytes", "json", Example("tensor", output=[[1, 2]]), Example("dumped", output=[1, 2])]
    packed = proved(source, names)
    assert packed.golden is not None
    answers = [each.answer for each in packed.golden.examples]
    assert [(each.kind, each.content_type) for each in answers] == [
        ("text", None), ("bytes", None), ("json", None), ("tensor", None), ("json", "application/json"),
    ]  # fmt: skip
    tensor = {"dtype": "float32", "shape": [1, 2], "values": [[1.0, 2.0]]}
    assert values(packed) == ["x", "/w==", [1.5, None], tensor, [1.0, 2]]
    assert packed.golden.batch


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_there\ndef handle(data, context): ...\n", "No module named 'nothing_there'"),
        ("def handle(data, context):\n    raise SystemExit(3)\n", "SystemExit: 3"),
        ("print('last words')\nimport os\nos._exit(7)\ndef handle(data, context): ...\n", "status 7); it said last: "),
        (
            "def handle(data, context):\n    if data:\n        import os\n        os.kill(os.getpid(), 9)\n",
            "(signal 9)",
        ),
    ],
)
def test_a_handler_that_does_not_load_or_dies_is_refused(proved: Pack, source: str, message: str) -> None:
    """What the handler says when it fails to load, or when its process ends, is in the message."""
    with pytest.raises(LoadFailed) as caught:
        proved(source, TWO)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("when", "plan", "message"),
    [
        ("data is None", ProofPlan(load_timeout_s=1), "loading the handler took longer than 1 s"),
        ("data", ProofPlan(call_timeout_s=0.2), "a call with 1 row took longer than 0.2 s"),
    ],
)
def test_a_handler_that_hangs_is_killed_with_its_children(
    proved: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, plan: ProofPlan, message: str
) -> None:
    """Past its time the process and what it started are gone, and so is its directory."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    pids = tmp_path / "pids"
    source = f"""\
import os, subprocess, sys


def handle(data, context):
    if {when}:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        child.wait()
    return []
"""
    with pytest.raises(LoadFailed, match=message):
        proved(source, TWO, plan=plan)
    assert pids.exists() or when == "data is None"  # a slow machine is still importing torch then
    for pid in map(int, pids.read_text().split() if pids.exists() else ()):
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    assert not list((tmp_path / "tmp").iterdir())


SURROUNDINGS = """\
import os, sys


def handle(data, context):
    open("left behind", "w").write("x")
    here = os.getcwd()
    facts = {"env": sorted(os.environ), "home": os.path.dirname(os.environ["HOME"]) == os.path.dirname(here),
             "files": sorted(os.listdir(here)), "stdin": sys.stdin.read(), "argv": sys.argv,
             "marway": any("marway_archiver" in path for path in sys.path),
             "first": sys.path[0] == here}
    return [facts | {"row": row["data"]} for row in data or []]
"""


def test_the_process_sees_no_secrets_and_leaves_nothing(
    proved: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler runs in an own directory, its home too, without the caller's variables; nothing stays."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    found = values(proved(SURROUNDINGS, TWO))[0]
    allowed = {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH", "PYTHONPATH",
               "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV"}  # fmt: skip
    extra = {name for name in found["env"] if not name.startswith(("CUDA", "TORCH", "MKL", "NVIDIA", "OPENBLAS"))}
    assert extra - {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PYTORCH_NVML_BASED_CUDA_CHECK"} <= allowed
    assert found["files"] == ["MAR-INF", "its_handler.py", "left behind"]
    assert (found["home"], found["stdin"], found["argv"], found["first"]) == (True, "", ["m"], True)
    assert not list((tmp_path / "tmp").iterdir())
    assert "its_handler" not in __import__("sys").modules


INTERRUPTED = """
import json, sys
from marway_archiver import pack
pack(**json.loads(sys.argv[1]), examples=["one", "two"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_ends_the_handlers_process(child: Child, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM leave no process and no file; after kill -9 of the caller the handler is gone as well."""
    (tmp_path / "tmp").mkdir()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    handler = tmp_path / "its_handler.py"
    handler.write_text(
        "import os, signal\n\n\ndef handle(data, context):\n"
        f"    out = open({str(fifo)!r}, 'w')\n    print('here', file=out, flush=True)\n    signal.pause()\n"
    )
    given = {"model_name": "m", "version": "1", "handler": str(handler), "export_path": str(tmp_path)}
    process = child(INTERRUPTED, json.dumps(given), env={"TMPDIR": str(tmp_path / "tmp")})
    with fifo.open() as words:
        assert words.readline() == "here\n"
        process.send_signal(number)
        assert words.read() == ""  # the handler's end is closed: it is gone
    process.communicate(timeout=30)
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "m.mar").exists()


def test_an_answer_that_changes_each_time_is_refused(proved: Pack) -> None:
    """A golden answer must come again: one that is drawn at random cannot be one."""
    source = "import random\n\n\ndef handle(data, context):\n    return [random.random() for _ in data or []]\n"
    with pytest.raises(InvalidArchive, match="answers differently each time"):
        proved(source, TWO)


def test_a_cpp_handler_has_no_golden_examples(tmp_path: Path) -> None:
    """A shared library for the C++ backend cannot be run here, and says so."""
    (tmp_path / "libh.so").write_bytes(b"\x7fELF")
    with pytest.raises(InvalidArchive, match="need a Python handler"):
        pack(
            model_name="m", version="1", handler=f"{tmp_path}/libh:H", runtime="LSP", export_path=tmp_path,
            examples=["x"],
        )  # fmt: skip


def test_a_golden_file_that_is_there_is_kept(proved: Pack, tmp_path: Path) -> None:
    """Without force, a golden document in the way is told before the handler is run."""
    (tmp_path / "m.golden.json").write_text("mine")
    (tmp_path / "h.py").write_text(ECHO)
    with pytest.raises(InvalidArchive, match=r"m\.golden\.json exists"):
        pack(
            model_name="m", version="1", handler=str(tmp_path / "h.py"), export_path=tmp_path, examples=TWO,
            golden_file=tmp_path / "m.golden.json",
        )  # fmt: skip
    assert (tmp_path / "m.golden.json").read_text() == "mine"
    assert not (tmp_path / "m.mar").exists()


def test_inspect_tells_a_damaged_index(tmp_path: Path, proved: Pack) -> None:
    """An archive whose examples cannot be read would be refused, and inspect says why."""
    packed = proved(ECHO, [])
    broken = repack(packed.path, tmp_path / "broken.mar", add_files={"MAR-INF/examples/index.json": b"{"})
    assert "index.json: document: Invalid JSON" in inspect_archive(broken.path).problems[0]


def test_repack_has_one_progress(tmp_path: Path, proved: Pack) -> None:
    """Checking and writing are one progress, which never falls and ends with its total."""
    (tmp_path / "big.bin").write_bytes(bytes(5 << 20))
    packed = proved(ECHO, [], extra_files=[tmp_path / "big.bin"])
    seen: list[tuple[int, int]] = []
    repack(packed.path, tmp_path / "again.mar", progress=lambda done, total: seen.append((done, total)))
    done = [each for each, _ in seen]
    assert done == sorted(done)
    assert {total for _, total in seen} == {packed.size_bytes}
    assert done[-1] == packed.size_bytes
    assert any(0.2 < each / packed.size_bytes < 0.5 for each in done)
    assert any(0.5 < each / packed.size_bytes < 0.9 for each in done)


def test_phases_that_tell_nothing_count_as_done() -> None:
    """A piece of work that is skipped does not hold the progress back."""
    seen: list[tuple[int, int]] = []
    phases = Phases(3, lambda done, total: seen.append((done, total)))
    phases.next()(50, 100)
    phases.next()
    phases.next()(5, 10)
    phases.end()
    assert seen == [(16, 100), (33, 100), (66, 100), (83, 100), (100, 100)]


STREAMS = """\
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    send_intermediate_predict_response([row["data"] for row in data], context.request_ids, "ok", 200, context)
    return ["end"] * len(data)
"""


def test_a_handler_that_sends_pieces_is_found_out(proved: Pack, tmp_path: Path) -> None:
    """The examples show that a handler streams, and the version is published as one that does."""
    packed = proved(STREAMS, ["one", "three"])
    assert packed.proof is not None
    assert packed.proof.streaming
    assert packed.warnings == (
        "the handler sends its answers in pieces: the version will be declared streaming when it is published",
    )
    registry = Registry(open_store(f"file://{tmp_path / 'registry'}"))
    record, _ = publish_archive(packed.path, registry=registry)
    assert record.serving.streaming
    assert not proved(ECHO, TWO).proof.streaming  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("examples", "warned"),
    [
        (["one", "two"], True),
        (["one", "three"], False),
        ([[1, 2], [3, 4]], True),
        ([[1, 2], [3]], False),
        ([{"a": "xy"}, {"a": "zw"}], True),
        ([{"a": "xy"}, {"a": "z"}], False),
        ([[[1], [2, 3]], [[1, 2], [3]]], False),
        ([1, 2], False),
        ([{"a": 1}, {"a": 2}], False),
    ],
)
def test_examples_of_one_shape_prove_nothing_of_padding(proved: Pack, examples: list[Any], warned: bool) -> None:
    """Where all examples have the same lengths, no batch of them is padded: packing says so, and batches anyway."""
    packed = proved(ECHO, examples)
    assert packed.golden is not None
    assert packed.golden.batch
    assert [warning.partition(":")[0] for warning in packed.warnings] == (
        ["all golden examples have one shape"] if warned else []
    )


@pytest.mark.parametrize("how", ['row["body"]', '{**row}["body"]', 'dict(row)["data"]', 'row.get("data")'])
def test_handlers_written_for_rest_and_for_grpc_can_be_packed(proved: Pack, how: str) -> None:
    """A raw body is found under both names when an archive is packed, as it is when it is served, in copies too."""
    packed = proved(f"def handle(data, context):\n    return [{how} for row in data or []]\n", ["one", "three"])
    assert values(packed) == ["one", "three"]


ASYNC = """
import asyncio

class Async:
    def initialize(self, context):
        self.loop = asyncio.get_event_loop()

    async def handle(self, data, context):
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        return [row["data"].upper() for row in data]
"""
CONTINUOUS = """
class Continuous:
    def initialize(self, context):
        self.left = {}

    def handle(self, data, context):
        ids = list(context.request_ids.values())
        self.left.update({name: list(row["data"]) for name, row in zip(ids, data) if row})
        context.stopping_criteria = [lambda _, name=name: not self.left[name] for name in ids]
        return [self.left[name].pop(0) for name in ids]
"""


@pytest.mark.parametrize(
    ("config", "source", "answers", "streams"),
    [
        ("asyncCommunication: true\n", ASYNC, ["ONE", "TWO"], False),
        ("continuousBatching: true\n", CONTINUOUS, ["e", "o"], True),
    ],
    ids=["async", "continuous"],
)
def test_a_handler_is_called_as_its_archive_has_it(
    proved: Pack, tmp_path: Path, config: str, source: str, answers: list[str], streams: bool
) -> None:
    """`asyncCommunication` and `continuousBatching` are proved, too; of pieces the last is the golden answer."""
    (tmp_path / "c.yaml").write_text(config)
    packed = proved(source, TWO, config_file=tmp_path / "c.yaml")
    assert values(packed) == answers
    assert packed.proof is not None
    assert packed.proof.streaming is streams
