from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidArchive
from marway_archiver import pack
from marway_archiver.testing import (
    LoadedHandler,
    Row,
    assert_batch_correct,
    bytes_row,
    form_row,
    json_row,
    load_handler,
    text_row,
)

HANDLER = """\
import json
from pathlib import Path

from its_helper import shout


class Handler:
    def initialize(self, context):
        root = Path(context.system_properties["model_dir"])
        self.words = json.loads((root / "words.json").read_text())
        self.manifest = context.manifest

    def handle(self, data, context):
        answers = []
        for index, row in enumerate(data):
            context.set_response_header(index, "x-row", str(index))
            context.set_response_content_type(index, "text/plain")
            answers.append(shout(self.words.get(row["data"], "?")))
        return answers
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "its_handler.py").write_text(HANDLER)
    (directory / "its_helper.py").write_text("def shout(text):\n    return text.upper()\n")
    (directory / "words.json").write_text('{"one": "uno", "two": "due"}')
    return directory


def loaded(tmp_path: Path, source: str, **options: Any) -> LoadedHandler:
    path = tmp_path / "its_handler.py"
    path.write_text(source)
    return load_handler(path, **options)


@pytest.mark.parametrize("kind", ["file", "files", "archive", "directory"])
def test_a_handler_is_loaded_from_wherever_it_is(kind: str, files: Path, tmp_path: Path) -> None:
    """A Python file, alone or with further files, a .mar and an unpacked archive all load and answer alike."""
    extra = [files / "its_helper.py", files / "words.json"]
    packing: dict[str, Any] = {
        "model_name": "m", "version": "1", "handler": str(files / "its_handler.py"), "extra_files": extra,
        "export_path": tmp_path,
    }  # fmt: skip
    if kind == "file":
        handler = load_handler(files / "its_handler.py")
    elif kind == "files":
        handler = load_handler(files / "its_handler.py", extra_files=extra)
    elif kind == "archive":
        handler = load_handler(pack(**packing).path)
    else:
        handler = load_handler(pack(**packing, archive_format="no-archive").path)
    path_before = [*sys.path]
    with handler:
        answers = handler.ask(text_row("one"), text_row("two"))
        assert [(each.text, each.content_type, each.headers) for each in answers] == [
            ("UNO", "text/plain", {"x-row": "0"}),
            ("DUE", "text/plain", {"x-row": "1"}),
        ]
        assert_batch_correct(handler, [text_row("one"), text_row("two")])
    handler.close()
    assert "its_helper" not in sys.modules
    assert len(sys.path) == len(path_before) - 1


def test_modules_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    """Two handlers loaded at once, each with a module `helper`, use their own, and the test's own comes back."""
    mine = type(sys)("helper")
    sys.modules["helper"] = mine
    try:
        handlers = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "helper.py").write_text(f"NAME = {name!r}\n")
            source = "import helper\n\n\ndef handle(data, context):\n    return [helper.NAME for _ in data or []]\n"
            handlers.append(loaded(tmp_path / name, source))
        assert [each.ask({"data": 1})[0].text for each in handlers] == ["a", "b"]
        for each in reversed(handlers):
            each.close()
        assert sys.modules["helper"] is mine
    finally:
        del sys.modules["helper"]


def test_rows_are_what_torchserve_makes_of_requests(tmp_path: Path) -> None:
    """JSON is parsed, text is str, all else and form fields are bytearrays; headers and ids are in the context."""
    source = """\
def handle(data, context):
    return [
        {"row": {name: repr(value) for name, value in row.items()},
         "type": context.get_request_header(index, "content-type"),
         "id": context.get_request_id(index)}
        for index, row in enumerate(data or [])
    ]
"""
    with loaded(tmp_path, source) as handler:
        rows = [
            text_row("ü"), json_row({"a": 1}), bytes_row(b"\xff", "image/png"), bytes_row(b"x", x_trace="7"),
            form_row(image=b"\xff", note="n"), Row({"data": 1}, headers={"content-type": "x/y"}), {"body": 2},
        ]  # fmt: skip
        found = [answer.json() for answer in handler.ask(*rows)]
        assert [each["row"] for each in found] == [
            {"data": "'ü'"},
            {"data": "{'a': 1}"},
            {"data": "bytearray(b'\\xff')"},
            {"data": "bytearray(b'x')"},
            {"image": "bytearray(b'\\xff')", "note": "bytearray(b'n')"},
            {"data": "1"},
            {"body": "2"},
        ]
        assert [each["type"] for each in found] == [
            "text/plain", "application/json", "image/png", None, "multipart/form-data", "x/y", None,
        ]  # fmt: skip
        assert found[6]["id"] == "request-6"
        assert handler.context.get_request_header(3, "x-trace") == "7"
        assert handler.calls == 1


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("raise ValueError('no')", 500, "ValueError: no"),
        ("raise MemoryError", 507, "out of memory"),
        ("raise SystemExit(2)", 500, "SystemExit: 2"),
        ("return 'x'", 500, "returned str, not a list"),
        ("return []", 500, "returned 0 answers for 1 rows"),
        ("return [object()]", 500, "cannot be encoded"),
    ],
)
def test_failures_are_answers(tmp_path: Path, body: str, status: int, text: str) -> None:
    """What a handler raises or returns wrongly is the answer of its rows, with the exception beside it."""
    with loaded(tmp_path, f"def handle(data, context):\n    if data is None:\n        return\n    {body}\n") as handler:
        (answer,) = handler.ask({"data": 1})
        assert (answer.status, answer.kind) == (status, "error")
        assert text in answer.text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def handle(data, context):\n    return (data or [])[::-1]\n",
            "row 1 of a batch of 2 is not answered as alone",
        ),
        ("def handle(data, context):\n    return [1 for _ in data or []]\n", "whose answers differ"),
        ("def handle(data, context):\n    return [1][: len(data or [])] * 1\n", "whose answers differ"),
        ("def handle(data, context):\n    1 / (data is None)\n", "row 1 fails alone"),
        (
            "seen = []\n\n\ndef handle(data, context):\n    seen.extend(data or [])\n"
            "    return [[row['data'], len(seen) > 67] for row in data or []]\n",
            "is answered differently after other calls",
        ),
    ],
)
def test_what_batches_wrongly_is_told(tmp_path: Path, source: str, message: str) -> None:
    """Rows that meet, that could not show it, that fail, or that depend on what came before, fail the assertion."""
    with loaded(tmp_path, source) as handler, pytest.raises(AssertionError, match=message):
        assert_batch_correct(handler, [text_row("one"), text_row("two")])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("class A: ...\nclass B: ...\n", {}, "exactly one class or a function 'handle': it has A, B"),
        ("x = 1\n", {}, "it has none"),
        ("x = 1\n", {"handler": "its_handler.py:answer"}, "defines no function 'answer'"),
    ],
)
def test_a_file_without_a_handler_is_refused(
    tmp_path: Path, source: str, options: dict[str, Any], message: str
) -> None:
    """A file in which TorchServe would find no entry point is refused, and its directory is off the path again."""
    with pytest.raises(InvalidArchive, match=message):
        loaded(tmp_path, source, **options)
    assert str(tmp_path) not in sys.path


def test_a_function_and_a_configuration(tmp_path: Path, files: Path) -> None:
    """FILE:FUNCTION names the entry point, and the model's configuration is in the context."""
    (files / "config.yaml").write_text("handler:\n  top: 3\n")
    (files / "f_handler.py").write_text(
        "def answer(data, context):\n    return [context.model_yaml_config['handler']['top'] for _ in data or []]\n"
    )
    packed = pack(
        model_name="m", version="1", handler=f"{files}/f_handler.py:answer", config_file=files / "config.yaml",
        export_path=tmp_path,
    )  # fmt: skip
    with load_handler(packed.path) as handler:
        assert handler.ask({"data": 1})[0].json() == 3
        assert handler.instance is None


@pytest.mark.parametrize(
    ("config", "source"),
    [
        (
            "asyncCommunication: true\n",
            "async def handle(data, context):\n    return None if data is None else [row['data'] for row in data]\n",
        ),
        (
            "continuousBatching: true\n",
            "left = {}\ndef handle(data, context):\n    if data is None:\n        return None\n"
            "    ids = list(context.request_ids.values())\n"
            "    left.update({name: list(row['data']) for name, row in zip(ids, data) if row})\n"
            "    context.stopping_criteria = [lambda _, name=name: not left[name] for name in ids]\n"
            "    return [left[name].pop(0) for name in ids]\n",
        ),
    ],
    ids=["async", "continuous"],
)
def test_a_handler_is_called_as_its_archive_has_it(tmp_path: Path, files: Path, config: str, source: str) -> None:
    """Many calls at once, or a piece with each call: an answer is whole, and each row's own."""
    (files / "config.yaml").write_text(config)
    (files / "way_handler.py").write_text(source)
    packed = pack(
        model_name="m", version="1", handler=str(files / "way_handler.py"), config_file=files / "config.yaml",
        export_path=tmp_path,
    )  # fmt: skip
    with load_handler(packed.path) as handler:
        assert [each.text for each in handler.ask(text_row("one"), text_row("three"))] == ["one", "three"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A handler that is not there gives one line."""
    with pytest.raises(InvalidArchive, match=r"nothing\.py does not exist"):
        load_handler(tmp_path / "nothing.py")


def test_a_raw_body_answers_to_both_names(tmp_path: Path) -> None:
    """Rows of a raw body are found under `data` and `body`, as where they are served; a form has its own names."""
    (tmp_path / "two_handler.py").write_text(
        "def handle(data, context):\n    return [[row.get('body'), sorted(dict(row))] for row in data or []]\n"
    )
    with load_handler(tmp_path / "two_handler.py") as handler:
        answers = handler.ask(text_row("x"), form_row(data=b"y"))
    assert [answer.output for answer in answers] == [["x", ["body", "data"]], [None, ["data"]]]
