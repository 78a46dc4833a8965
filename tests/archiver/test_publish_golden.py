from __future__ import annotations

import json
import logging
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_archiver.model_packaging import generate_model_archive

from marway.answers.golden import GoldenDocument, decode_golden
from marway.errors import InvalidArchive, InvalidInput
from marway.objects import open_store
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver import Example, PackedArchive, pack, publish, publish_archive

# After ours, which imports it without the warning that it gives.
from model_archiver.model_archiver_config import ModelArchiverConfig  # isort: skip

Child = Callable[..., "subprocess.Popen[str]"]

ECHO = "def handle(data, context):\n    return [{'got': row['data']} for row in data or []]\n"
WRONG = "def handle(data, context):\n    return [row['data'] for row in data or []][::-1]\n"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(open_store((tmp_path / "registry").as_uri()))


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    path = tmp_path / "its_handler.py"
    path.write_text(ECHO)
    return path


def golden_of(registry: Registry, record: VersionRecord) -> GoldenDocument:
    assert record.golden_sha256 is not None
    return decode_golden(registry.golden(record.golden_sha256), source="registry")


def test_an_archive_that_asks_for_more_workers_than_it_may_have_is_refused(
    handler: Path, registry: Registry, tmp_path: Path
) -> None:
    """`minWorkers` above the record's `max_workers` is refused, packed here or before, and nothing is stored."""
    config = tmp_path / "config.yaml"
    config.write_text("minWorkers: 3\nmaxWorkers: 4\n")
    record = {"serving": {"max_workers": 2}}
    with pytest.raises(InvalidArchive, match="minWorkers 3, and the serving settings allow 2"):
        publish(
            model_name="m", version="1", handler=str(handler), config_file=str(config), registry=registry, record=record
        )
    packed = pack(model_name="m", version="1", handler=str(handler), config_file=str(config), export_path=tmp_path)
    with pytest.raises(InvalidArchive, match="minWorkers 3, and the serving settings allow 2"):
        publish_archive(packed.path, registry=registry, record=record)
    assert list(registry.models()) == []


def test_one_call_packs_proves_and_publishes(
    handler: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The record names golden answers that are in the registry, and a proof says who gave them, without a warning."""
    seen: list[tuple[int, int]] = []
    record = publish(
        model_name="m", version="1", handler=str(handler), registry=registry, examples=["one", {"two": 2}],
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    golden = golden_of(registry, record)
    assert golden.archive_sha256 == record.archive.sha256
    assert [each.answer.value for each in golden.examples] == [{"got": "one"}, {"got": {"two": 2}}]
    assert (golden.batch, record.serving.max_batch_rows) == (True, 32)
    (proof,) = registry.proofs(record.archive.sha256)
    assert (proof.kind, proof.server, proof.golden_sha256) == ("pack", "torchserve", record.golden_sha256)
    assert set(proof.server_versions) == {"torchserve", "torch", "python"}
    assert caplog.messages == []
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1


def test_what_batches_wrongly_is_served_one_row_at_a_time(
    handler: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The record of a version whose batches differ says 1 row, whatever was asked for, and a warning says why."""
    handler.write_text(WRONG)
    record = publish(
        model_name="m", version="1", handler=str(handler), registry=registry, examples=["one", "two"],
        record={"serving": {"max_batch_rows": 8}},
    )  # fmt: skip
    assert record.serving.max_batch_rows == 1
    assert not golden_of(registry, record).batch
    assert "row 1 of a batch of 2 (example" in caplog.messages[0]


def test_the_batch_that_was_proved_is_kept(handler: Path, registry: Registry) -> None:
    """A version is proved up to the rows that it asks for, and keeps them."""
    record = publish(
        model_name="m", version="1", handler=str(handler), registry=registry, examples=["one", "two"],
        record={"serving": {"max_batch_rows": 5}},
    )  # fmt: skip
    assert record.serving.max_batch_rows == 5
    assert golden_of(registry, record).batch_sizes == (2, 3, 4, 5)


def test_without_examples_nothing_is_run_or_batched(
    handler: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """No examples: the handler is not run, the version not batched, and a warning says so."""
    record = publish(model_name="m", version="1", handler=str(handler), registry=registry)
    assert (record.golden_sha256, record.serving.max_batch_rows) == (None, 1)
    assert "there are no golden examples" in caplog.messages[0]
    assert list(registry.proofs(record.archive.sha256)) == []


@pytest.mark.parametrize(
    ("examples", "tolerance", "error", "message"),
    [
        ([Example("one", output={"got": "two"})], None, InvalidArchive, '"two" was expected, "one" came'),
        ("one", None, InvalidArchive, "put a single example into a list"),
        (["one"], 2.0, InvalidInput, "tolerance 2: it must be from 0 to 1"),
        (["one"], float("nan"), InvalidInput, "tolerance nan"),
    ],
)
def test_nothing_is_stored_when_examples_are_refused(
    handler: Path, registry: Registry, tmp_path: Path, examples: Any, tolerance: float | None, error: Any, message: str
) -> None:
    """An example whose output does not come, and wrong arguments, leave the registry empty."""
    with pytest.raises(error) as caught:
        publish(
            model_name="m", version="1", handler=str(handler), registry=registry, examples=examples,
            tolerance=tolerance,
        )  # fmt: skip
    assert message in caught.value.message
    assert list(registry.models()) == []
    assert not [path for path in (tmp_path / "registry").rglob("*") if path.is_file()]


def test_publishing_the_same_again_changes_nothing(handler: Path, registry: Registry) -> None:
    """A second publish of the same inputs gives the stored record, and one more proof."""
    given: dict[str, Any] = {"model_name": "m", "version": "1", "handler": str(handler), "registry": registry}
    first = publish(**given, examples=["one", "two"])
    assert publish(**given, examples=["one", "two"]) == first
    assert len(list(registry.proofs(first.archive.sha256))) == 2


def test_a_packed_archive_is_proved_again_when_it_is_published(
    echo: PackedArchive, registry: Registry, tmp_path: Path
) -> None:
    """`publish_archive` runs the examples that the archive carries and holds them to its golden document."""
    golden_file = tmp_path / "m.golden.json"
    assert echo.golden is not None
    other = golden_file.read_text().replace('"got": "one"', '"got": "uno"')
    golden_file.write_text(other)
    with pytest.raises(InvalidArchive, match='not answered as when it was packed: at got: "uno" was expected'):
        publish_archive(echo.path, registry=registry)
    golden_file.write_text(other.replace(echo.sha256, "0" * 64))
    with pytest.raises(InvalidArchive, match="is of another archive"):
        publish_archive(echo.path, registry=registry, golden=golden_file)
    record, repacked = publish_archive(echo.path, registry=registry)  # one of another pack lies beside it: no matter
    assert not repacked
    assert record.golden_sha256 == echo.golden.sha256
    assert len(list(registry.proofs(echo.sha256))) == 1


def test_an_archive_of_torch_model_archiver_keeps_the_examples_it_carries(
    echo: PackedArchive, registry: Registry, tmp_path: Path
) -> None:
    """Re-packing keeps golden examples, and what is stored is of the canonical bytes."""
    theirs_path = tmp_path / "theirs.mar"
    with zipfile.ZipFile(echo.path) as ours, zipfile.ZipFile(theirs_path, "w", zipfile.ZIP_DEFLATED) as theirs:
        for name in ours.namelist():
            theirs.writestr(name, ours.read(name))
    record, repacked = publish_archive(theirs_path, registry=registry)
    assert repacked
    assert record.archive.sha256 == echo.sha256 == golden_of(registry, record).archive_sha256
    (proof,) = registry.proofs(echo.sha256)
    assert proof.golden_sha256 == record.golden_sha256


def test_publish_has_one_progress_for_an_archive(handler: Path, registry: Registry, tmp_path: Path) -> None:
    """Checking, re-packing and storing are one progress, which never falls and ends with its total."""
    (tmp_path / "big.bin").write_bytes(bytes(3 << 20))
    given = {"model_name": "m", "version": "1", "handler": str(handler), "extra_files": str(tmp_path / "big.bin")}
    generate_model_archive(ModelArchiverConfig(**given, export_path=str(tmp_path), archive_format="zip-store"))
    seen: list[tuple[int, int]] = []
    _, repacked = publish_archive(
        tmp_path / "m.mar", registry=registry, progress=lambda done, total: seen.append((done, total))
    )
    assert repacked
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == (tmp_path / "m.mar").stat().st_size


BARE = """
import importlib.abc, json, logging, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ts", "torch", "fastapi", "grpc", "starlette", "uvicorn", "aiohttp", "numpy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
import importlib.util
real = importlib.util.find_spec
def find_spec(name, package=None):
    return None if name in {"ts", "torch"} else real(name, package)
importlib.util.find_spec = find_spec
"""

PUBLISH = (
    BARE
    + """
from marway.errors import MarwayError
from marway_archiver import Example, publish
given = json.loads(sys.argv[1])
predict = {"none": None, "good": lambda inputs: [{"got": value} for value in inputs], "short": lambda inputs: [],
           "odd": lambda inputs: [object()] * len(inputs), "bytes": lambda inputs: [b"x"] * len(inputs)}[sys.argv[2]]
try:
    record = publish(**given, examples=["one", Example({"two": 2}, output={"got": {"two": 2}})], predict=predict)
    print(record.model_dump_json())
except MarwayError as exc:
    print(exc.message)
"""
)


def in_bare_install(child: Child, handler: Path, registry: Registry, predict: str) -> tuple[str, str]:
    given: dict[str, Any] = {"model_name": "m", "version": "1", "handler": str(handler)}
    given |= {"registry": registry.url, "create_registry": True}
    process = child(PUBLISH, json.dumps(given), predict)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out, err


def test_a_callable_answers_where_torchserve_is_absent(child: Child, handler: Path, registry: Registry) -> None:
    """Without TorchServe the caller's callable gives the golden answers; no batch is proved, and no proof made."""
    out, err = in_bare_install(child, handler, registry, "good")
    record = VersionRecord.model_validate_json(out)
    golden = golden_of(registry, record)
    assert (golden.source, golden.batch, record.serving.max_batch_rows) == ("callable", False, 1)
    assert [each.answer.value for each in golden.examples] == [{"got": "one"}, {"got": {"two": 2}}]
    assert err == (
        "warning: requests will be served one at a time: the handler was not run: TorchServe is not installed here\n"
    )
    assert list(registry.proofs(record.archive.sha256)) == []


def test_answers_are_skipped_with_a_warning_where_nothing_can_give_them(
    child: Child, handler: Path, registry: Registry
) -> None:
    """Without TorchServe and without a callable the version is published, its examples unanswered, and that is said."""
    out, err = in_bare_install(child, handler, registry, "none")
    record = VersionRecord.model_validate_json(out)
    assert (record.golden_sha256, record.serving.max_batch_rows) == (None, 1)
    assert "the golden examples are not answered: TorchServe is not installed here" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        ("short", "predict gave 0 answers for 2 examples"),
        ("odd", "predict's answer to example 1 is neither text, bytes nor JSON"),
        ("bytes", "example 2: predict does not give the example's output"),
    ],
)
def test_a_callables_bad_answers_are_refused(
    child: Child, handler: Path, registry: Registry, predict: str, message: str
) -> None:
    """Too few answers, what is no answer, and another one than the example's give one line, and nothing is stored."""
    out, _ = in_bare_install(child, handler, registry, predict)
    assert message in out
    assert list(registry.models()) == []


def test_a_golden_document_beside_an_archive_stands_where_torchserve_is_absent(
    child: Child, echo: PackedArchive, registry: Registry, tmp_path: Path
) -> None:
    """An archive proved elsewhere is published with its golden document, batches and all, and no proof of ours."""
    assert echo.golden is not None
    code = BARE + (
        "from marway_archiver import publish_archive\n"
        "print(publish_archive(sys.argv[1], registry=sys.argv[2], create_registry=True)[0].model_dump_json())\n"
    )
    process = child(code, str(echo.path), registry.url)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    record = VersionRecord.model_validate_json(out)
    assert (record.golden_sha256, record.serving.max_batch_rows) == (echo.golden.sha256, 32)
    assert golden_of(registry, record) == echo.golden
    assert list(registry.proofs(echo.sha256)) == []


KIT = (
    BARE
    + """
from marway_archiver.testing import assert_batch_correct, load_handler, text_row
with load_handler(sys.argv[1]) as handler:
    print([(answer.status, answer.kind, answer.text) for answer in handler.ask(text_row("one"), text_row("two"))])
    print([(answer.status, answer.text) for answer in handler.ask(text_row("bad"))])
    assert_batch_correct(handler, [text_row("one"), text_row("two")])
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"ts", "torch", "its_handler"}))
"""
)

CLASS = """\
from ts.context import Context
from ts.utils.util import PredictionException


class Handler:
    def initialize(self, context: Context):
        self.directory = context.system_properties["model_dir"]

    def handle(self, data, context: Context):
        context.metrics.add_counter("calls", 1)
        if any(row["data"] == "bad" for row in data):
            raise PredictionException("not this one", 422)
        return [row["data"].upper() for row in data]
"""


def test_the_test_kit_needs_no_torchserve(child: Child, handler: Path) -> None:
    """A handler written for TorchServe runs in the kit where ts and torch are absent, and nothing of it stays."""
    handler.write_text(CLASS)
    process = child(KIT, str(handler))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines() == [
        "[(200, 'text', 'ONE'), (200, 'text', 'TWO')]",
        "[(422, 'not this one')]",
        "[]",
    ]


def test_the_kit_says_what_it_does_not_stand_in_for(child: Child, handler: Path) -> None:
    """A handler built on TorchServe's own base class is told to install TorchServe."""
    handler.write_text("from ts.torch_handler.base_handler import BaseHandler\n\n\nclass H(BaseHandler):\n    pass\n")
    process = child(KIT, str(handler))
    _, err = process.communicate(timeout=60)
    assert "ts.torch_handler.base_handler.BaseHandler is TorchServe's own code" in err
    assert "pip install 'marway[runtime]'" in err


def test_warnings_go_to_the_log(caplog: pytest.LogCaptureFixture, handler: Path, registry: Registry) -> None:
    """Warnings are log records of the library, so that a training script shows, keeps or silences them."""
    publish(model_name="m", version="1", handler=str(handler), registry=registry)
    assert [(each.name, each.levelno) for each in caplog.records] == [("marway_archiver.storing", logging.WARNING)]
