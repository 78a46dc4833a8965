"""What `pack` refuses: each row is a mistake and a part of the line that it prints."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidArchive, InvalidReference
from marway_archiver import pack

Arguments = Callable[..., dict[str, Any]]
CLASS = "class {name}:\n    def initialize(self, c): ...\n    def handle(self, d, c): ...\n"


@dataclass(frozen=True)
class Row:
    """One mistake: files to write (text, by name), arguments to change, and what the message says."""

    name: str
    message: str
    write: dict[str, str] = field(default_factory=dict)
    change: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda inputs: None


def handler(name: str, message: str, source: str, **change: Any) -> Row:
    return Row(name, message, {"handler.py": source}, change)


ROWS = [
    Row("no handler", "is none of TorchServe's own (base_handler", change={"handler": "{}/missing.py"}),
    Row("handler directory", "handler.py does not exist", change={"handler": "{}/extra/handler"}),
    Row("odd function", "cannot be a function's name", change={"handler": "{}/handler:a-b"}),
    Row("no colon part", "cannot be a function's name", change={"handler": "{}/handler.py:"}),
    handler("syntax", "handler.py:2: does not parse", "x = 1\ndef handle(:\n"),
    handler("null byte", "does not parse", "x = '\0'\n"),
    handler("no class", "defines no class and no function 'handle'", "x = 1\n"),
    handler("two classes", "2 classes, A (line 1), B (line 4)", CLASS.format(name="A") + CLASS.format(name="B")),
    handler("class in if", "2 classes", CLASS.format(name="A") + "if True:\n    class B: ...\n"),
    handler("class in try", "2 classes", CLASS.format(name="A") + "try:\n    class B: ...\nfinally:\n    pass\n"),
    handler("class and namedtuple", "2 classes", "P = namedtuple('P', 'x')\n" + CLASS.format(name="A")),
    handler("two names of a class", "2 classes", CLASS.format(name="A") + "B = A\n"),
    handler("no handle method", "has no method 'handle'", "class A:\n    def initialize(self, c): ...\n"),
    handler("no initialize method", "has no method 'initialize'", "class A:\n    def handle(self, d, c): ...\n"),
    handler("constructor", "__init__ needs arguments", CLASS.format(name="A") + "    def __init__(self, x): ...\n"),
    handler("arguments", "handle must take two arguments", "def handle(data):\n    return data\n"),
    handler("missing function", "defines no function 'other'", CLASS.format(name="A"), handler="{}/handler:other"),
    handler("relative import", "handler.py:1: a relative import fails", "from . import x\n" + CLASS.format(name="A")),
    handler("nested too deep", "does not parse", "x = " + "(" * 500 + ")" * 500),
    Row("handler is json", "would take the place of the module 'json'", {"json.py": CLASS.format(name="A")},
        {"handler": "{}/json.py"}),
    Row("handler is torch", "would take the place of the module 'torch'", {"torch.py": CLASS.format(name="A")},
        {"handler": "{}/torch"}),
    Row("handler's name", "cannot be imported: 'my-handler'", {"my-handler.py": CLASS.format(name="A")},
        {"handler": "{}/my-handler.py"}),
    Row("handler is a keyword", "cannot be imported: 'class'", {"class.py": ""}, {"handler": "{}/class.py"}),
    Row("handler and no weights", "has nothing to load",
        change={"handler": "image_classifier", "serialized_file": None, "model_file": None}),
    Row("two models", "must define exactly one class", {"model.py": "class A: ...\nclass B: ...\n"}),
    Row("no model", "defines no class: a model file", {"model.py": "x = 1\n"}),
    Row("model is no Python", "is not a Python file", change={"model_file": "{}/labels.json"}),
    Row("weights missing", "--serialized-file: {}/no.pt does not exist", change={"serialized_file": "{}/no.pt"}),
    Row("weights a directory", "extra is a directory: a file is wanted", change={"serialized_file": "{}/extra"}),
    Row("weights below a file", "weights.pt/x cannot be read: not a directory",
        change={"serialized_file": "{}/weights.pt/x"}),
    Row("requirements missing", "--requirements-file: ", change={"requirements_file": "{}/no.txt"}),
    Row("extra missing", "--extra-files: {}/nothing does not exist", change={"extra_files": "{}/nothing"}),
    Row("same name", "would both be 'labels.json' in the archive, and their contents differ",
        {"other/labels.json": "[]"}, {"extra_files": "{0}/labels.json,{0}/other"}),
    Row("handler twice", "would both be 'handler.py'", {"other/handler.py": "x"}, {"extra_files": "{}/other"}),
    Row("case", "differ only in case", {"other/VOCAB.txt": ""}, {"extra_files": "{0}/extra,{0}/other"}),
    Row("file and directory", "is a file, and a directory of", {"other/sub": ""},
        {"extra_files": "{0}/extra,{0}/other"}),
    Row("control character", "has a control character", {"extra/a\nb": ""}),
    Row("backslash", "has a backslash", {"extra/a\\b": ""}),
    Row("drive letter", "is an absolute path", {"extra/C:x": ""}),
    Row("trailing dot", "ends with a dot or a space", {"extra/a.": ""}),
    Row("MAR-INF", "is kept for the manifest", {"extra/mar-inf/MANIFEST.json": ""}),
    Row("package torch", "would take the place of the package 'torch'", {"extra/torch/__init__.py": ""}),
    Row("not UTF-8", "is not a UTF-8 name", prepare=lambda i: (i / "extra" / os.fsdecode(b"\xff")).touch()),
    Row("link out", "is a symbolic link out of its directory",
        prepare=lambda i: (i / "extra/x").symlink_to("/etc/hosts")),
    Row("link to nothing", "is a symbolic link to nothing", prepare=lambda i: (i / "extra/x").symlink_to("gone")),
    Row("link upwards", "is a link to a directory that holds it",
        prepare=lambda i: (i / "extra/x").symlink_to("../extra")),
    Row("fifo", "is not a regular file", prepare=lambda i: os.mkfifo(i / "extra/x")),
    Row("fifo for weights", "is not a regular file", prepare=lambda i: os.mkfifo(i / "f"),
        change={"serialized_file": "{}/f"}),
    Row("name too long", "longer than 1024 bytes",
        prepare=lambda i: (i / "extra" / "/".join(["x" * 200] * 6)).mkdir(parents=True)),
    Row("config", "model-config.yaml:1: minWorkers without maxWorkers", {"model-config.yaml": "minWorkers: 1\n"}),
    Row("runtime", "--runtime 'python2'", change={"runtime": "python2"}),
    Row("format", "--archive-format 'zip'", change={"archive_format": "zip"}),
    Row("export path", "is not a directory", change={"export_path": "{}/nowhere"}),
    Row("model name", "cannot be a model name", change={"model_name": "a b"}),
    Row("version", "looks like a label", change={"version": "PROD"}),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_refused_before_anything_is_written(row: Row, arguments: Arguments, inputs: Path, tmp_path: Path) -> None:
    """A mistake gives one clear line, and nothing is written."""
    for name, text in row.write.items():
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        (inputs / name).write_text(text)
    row.prepare(inputs)
    change = {key: value.format(inputs) if isinstance(value, str) else value for key, value in row.change.items()}
    with pytest.raises((InvalidArchive, InvalidReference)) as caught:
        pack(**arguments(**change))
    assert row.message.format(inputs) in caught.value.message
    assert "\n" not in caught.value.message
    assert not list((tmp_path / "out").iterdir())


ACCEPTED = {
    "one class, others imported": "from collections import OrderedDict\n" + CLASS.format(name="A"),
    "handle beside classes": CLASS.format(name="A") + CLASS.format(name="B") + "def handle(data, context): ...\n",
    "handle imported": "from json import loads as handle\n",
    "handle assigned": CLASS.format(name="A") + "_service = A()\nhandle = _service.handle\n",
    "a class deleted": CLASS.format(name="A") + CLASS.format(name="B") + "del B\n",
    "one class in either branch": "try:\n    import x\n    class A(x.Y): ...\n"
    "except ImportError:\n    class A(B): ...\n",
    "classes that never are": "if TYPE_CHECKING:\n    class T: ...\nif __name__ == '__main__':\n    class M: ...\n"
    + CLASS.format(name="A"),
    "a guarded relative import": "try:\n    from . import x\nexcept ImportError:\n    import x\n"
    + CLASS.format(name="A"),
    "a base class": "class A(Base):\n    pass\n",
    "classes inside others": CLASS.format(name="A") + "    class B: ...\n",
    "an odd escape": "x = '\\d'\n" + CLASS.format(name="A"),
}


@pytest.mark.parametrize("source", ACCEPTED.values(), ids=ACCEPTED)
def test_handlers_that_torchserve_takes_are_accepted(source: str, arguments: Arguments, inputs: Path) -> None:
    """A handler in which TorchServe finds its entry point is packed."""
    (inputs / "handler.py").write_text(source)
    pack(**arguments())


def test_a_source_that_changes_is_noticed(arguments: Arguments, inputs: Path, tmp_path: Path) -> None:
    """A file that is written to while it is packed is refused, and nothing is left."""
    weights = inputs / "weights.pt"
    weights.write_bytes(bytes(3 * 1024 * 1024))

    def write(_done: int, _total: int) -> None:
        with weights.open("ab") as file:
            file.write(b"x")

    with pytest.raises(InvalidArchive, match="changed while it was being packed"):
        pack(**arguments(progress=write))
    assert not list((tmp_path / "out").iterdir())


def test_the_archive_cannot_hold_itself(arguments: Arguments, inputs: Path) -> None:
    """An output that lies in an extra directory is refused as a source."""
    (inputs / "extra" / "digits.mar").touch()
    with pytest.raises(InvalidArchive, match="cannot hold itself"):
        pack(**arguments(export_path=inputs / "extra", force=True))


def test_a_socket_is_refused(arguments: Arguments, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket in an extra directory is no file."""
    monkeypatch.chdir(inputs / "extra")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(InvalidArchive, match="is not a regular file"):
            pack(**arguments())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(arguments: Arguments, inputs: Path) -> None:
    """A file without permission gives one line."""
    (inputs / "weights.pt").chmod(0)
    with pytest.raises(InvalidArchive, match=r"weights.pt cannot be read: permission denied"):
        pack(**arguments())
