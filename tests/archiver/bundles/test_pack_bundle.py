"""Directories of model servers packed as bundles: the same bytes anywhere, or one sentence on what the server wants."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from marway.answers.golden import Tolerance, decode_golden
from marway.bundles import read_bundle, unpack_bundle
from marway.errors import InvalidArchive, InvalidReference, MarwayError
from marway.records import TensorSpec
from marway_archiver import Example, PackedBundle, check_bundle, inspect_bundle, pack_bundle

CONFIG = b"""\
# A model of the Python backend.
name: "whatever"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] },
  { name: 'te' "xt", data_type: TYPE_STRING; dims: 1 }
]
output { name: "y" data_type: TYPE_INT64 dims: [ 2 ] }
model_transaction_policy { decoupled: true }
parameters: { key: "a\\nb", value: { string_value: "c" } }
"""
TRITON = {"config.pbtxt": CONFIG, "1/model.onnx": b"weights"}
SETTINGS = {
    "name": "iris",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "./model.joblib"},
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}, {"odd": 1}],
}
V2 = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
OUTPUTS = [{"name": "y", "datatype": "INT64", "shape": [1], "data": [3]}]


def written(root: Path, files: Mapping[str, bytes]) -> Path:
    root.mkdir(parents=True)
    for name, data in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root


def mlserver(**changes: Any) -> dict[str, bytes]:
    return {"model-settings.json": json.dumps(SETTINGS | changes).encode(), "model.joblib": b"weights"}


def packed(tmp_path: Path, files: Mapping[str, bytes], backend: str = "open-inference", **more: Any) -> PackedBundle:
    directory = written(tmp_path / "source", files)
    out = tmp_path / "out"
    out.mkdir()
    return pack_bundle(
        model_name="m", version="1.0", backend=backend, directory=directory, export_path=out, **more
    )  # fmt: skip


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Times, modes and the order in which files were made do not matter."""
    one = packed(tmp_path / "a", TRITON)
    other_files = dict(reversed(TRITON.items()))
    os.umask(os.umask(0o077))
    other = packed(tmp_path / "b", other_files)
    os.utime(tmp_path / "b/source/config.pbtxt", (1, 1))
    (tmp_path / "b/source/config.pbtxt").chmod(0o600)
    again = pack_bundle(
        model_name="m", version="1.0", backend="open-inference", directory=tmp_path / "b/source",
        export_path=tmp_path / "b",
    )  # fmt: skip
    assert one.sha256 == other.sha256 == again.sha256
    assert one.path == tmp_path / "a/out/m.bundle"
    assert one.path.read_bytes() == again.path.read_bytes()
    assert read_bundle(one.path) == one.manifest


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path) -> None:
    """All files come back, and directories without files, but for those that are hidden."""
    files = TRITON | {"labels.txt": b"", ".cache/x": b"secret", "__pycache__/x.pyc": b"x", ".dotted": b"kept"}
    directory = written(tmp_path / "source", files)
    (directory / "2/deep").mkdir(parents=True)
    found = pack_bundle(
        model_name="m", version="1.0", backend="open-inference", directory=directory, export_path=tmp_path
    )  # fmt: skip
    unpack_bundle(found.path, tmp_path / "there")
    names = {str(each.relative_to(tmp_path / "there")) for each in (tmp_path / "there").rglob("*")}
    assert names == {"config.pbtxt", "1", "1/model.onnx", "labels.txt", ".dotted", "2", "2/deep"}
    assert found.warnings == (f"{directory}/.cache is a hidden directory, and stays away",)


def test_triton_says_its_tensors(tmp_path: Path) -> None:
    """Inputs, outputs, framework and decoupled answers are taken from config.pbtxt, with the batch's dimension."""
    layout = packed(tmp_path, TRITON).layout
    assert layout.signature.inputs == (
        TensorSpec(name="x", datatype="FP32", shape=(-1, 3, -1)),
        TensorSpec(name="text", datatype="BYTES", shape=(-1, 1)),
    )
    assert layout.signature.outputs == (TensorSpec(name="y", datatype="INT64", shape=(-1, 2)),)
    assert (layout.framework, layout.streaming) == ("onnx", True)


def test_an_ensemble_is_warned_of(tmp_path: Path) -> None:
    """Its steps would not find versions of Marway's by their names; lists of messages are read on the way."""
    config = b"""
    platform: "ensemble"
    input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
    ensemble_scheduling { step [ { model_name: "a" model_version: -1
      input_map [ { key: "y", value: "z" }, { key: "v" value: "w" } ] } ] }
    """
    directory = written(tmp_path / "source", {"config.pbtxt": config})
    (directory / "1").mkdir()
    found = pack_bundle(
        model_name="m", version="1", backend="open-inference", directory=directory, export_path=tmp_path
    )  # fmt: skip
    assert "an ensemble's steps are models by the names that Triton has for them" in found.warnings[0]
    unpack_bundle(found.path, tmp_path / "there")
    assert (tmp_path / "there/1").is_dir()


def test_mlserver_says_its_tensors(tmp_path: Path) -> None:
    """The same from model-settings.json; what is odd there is passed over."""
    layout = packed(tmp_path, mlserver()).layout
    assert layout.signature.inputs == (TensorSpec(name="x", datatype="FP64", shape=(-1, 4)),)
    assert layout.signature.outputs == (TensorSpec(name="y", datatype="INT64", shape=(-1,)),)
    assert (layout.framework, layout.streaming, layout.warnings) == ("scikit-learn", False, ())


def test_a_saved_model_is_taken_out_of_its_version_directory(tmp_path: Path) -> None:
    """What Keras exports as DIR/1 and what DIR itself is give the same bundle."""
    files = {"saved_model.pb": b"x", "variables/variables.index": b"y"}
    one = packed(tmp_path / "a", files, "tensorflow-serving")
    other = packed(tmp_path / "b", {f"1/{name}": data for name, data in files.items()}, "tensorflow-serving")
    assert one.sha256 == other.sha256
    assert one.layout.framework == "tensorflow"


@pytest.mark.parametrize("backend", ["grpc-predictor", "http", "toy"])
def test_other_servers_take_any_files(tmp_path: Path, backend: str) -> None:
    """A predictor's, an HTTP server's and a third-party server's directory is their own matter."""
    found = packed(tmp_path, {"anything": b"x"}, backend)
    assert check_bundle(found.path).manifest == found.manifest


@pytest.mark.parametrize("backend", ["grpc-predictor", "http", "open-inference", "tensorflow-serving"])
def test_a_server_that_has_the_model_needs_no_files(tmp_path: Path, backend: str) -> None:
    """A bundle without a directory says which model it means there."""
    found = pack_bundle(
        model_name="m", version="1.0", backend=backend, server_model="densenet onnx", export_path=tmp_path
    )
    info = check_bundle(found.path)
    assert info.manifest is not None
    assert info.manifest.server_model == "densenet onnx"
    assert [each.name for each in info.files] == ["MARWAY-INF/bundle.json"]


REFUSED: dict[str, tuple[str, Mapping[str, bytes], str]] = {
    "nothing": ("http", {}, "source holds no file; for a server that has the model already, leave --directory away"),
    "no version directory": ("open-inference", {"config.pbtxt": CONFIG}, "has config.pbtxt and no version directory"),
    "version directory 0": ("open-inference", {"config.pbtxt": CONFIG, "01/m": b""}, "no version directory"),
    "no model directory": ("open-inference", {"model.onnx": b"x"}, "it is no model directory of an open-inference"),
    "a repository": ("open-inference", {"iris/config.pbtxt": CONFIG}, "it holds the model directory 'iris': give that"),
    "config with a typo": (
        "open-inference", TRITON | {"config.pbtxt": b'name: "x"\n\ninput [ { name "y" } ]'},
        "config.pbtxt:3: a ':' is missing after a field's name",
    ),
    "config that ends early": (
        "open-inference", TRITON | {"config.pbtxt": b"input [ { name: 'y'"}, "config.pbtxt:1: it ends early",
    ),
    "config that nests": ("open-inference", TRITON | {"config.pbtxt": b"a {" * 5000}, "more than 64 times"),
    "config in latin-1": ("open-inference", TRITON | {"config.pbtxt": b"name: '\xe4'"}, "config.pbtxt is not UTF-8"),
    "no JSON": ("open-inference", {"model-settings.json": b"{"}, "model-settings.json is not JSON"),
    "no implementation": ("open-inference", mlserver(implementation=None), "names no implementation"),
    "weights that are not there": (
        "open-inference", mlserver(parameters={"uri": "./gone.joblib"}),
        "reads the model from './gone.joblib', which is not in the directory",
    ),
    "no SavedModel": ("tensorflow-serving", {"model.keras": b"x"}, "it is no SavedModel: TensorFlow Serving wants"),
    "several SavedModels": (
        "tensorflow-serving", {"1/saved_model.pb": b"x", "2/saved_model.pb": b"x"}, "it holds the versions 1, 2: give",
    ),
    "a server of .mar": ("torchserve", {"a": b"x"}, "servers of the backend torchserve read a .mar"),
    "the same for mms": ("mms", {"a": b"x"}, "servers of the backend mms read a .mar"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_server_could_load_is_refused(tmp_path: Path, what: str) -> None:
    """One sentence says what is wanted, and nothing is written."""
    backend, files, message = REFUSED[what]
    with pytest.raises(InvalidArchive) as caught:
        packed(tmp_path, files, backend)
    assert message in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directory": "gone"}, "--directory: gone does not exist"),
        ({"directory": __file__}, "is no directory"),
        ({"model_name": "a/b"}, "cannot be a model name"),
        ({"version": "PROD"}, "looks like a label"),
        ({"backend": "Triton"}, "cannot be a backend"),
        ({"server_model": "a\nb"}, "server_model"),
        ({"server_model": ""}, "server_model"),
        ({"export_path": "gone"}, "--export-path gone is not a directory"),
        ({"examples": ["x"]}, "example 1 (x) has no output: no server is asked when a bundle is packed"),
        (
            {"examples": [Example("x", "y", status=400)]},
            "status 400: the golden examples of a bundle are answered ones",
        ),
        ({"examples": [Example("x", "\ud800")]}, "its output is neither text nor JSON"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    """As those of a `.mar` are."""
    given = {"model_name": "m", "version": "1", "backend": "http", "export_path": tmp_path} | arguments
    with pytest.raises((InvalidArchive, InvalidReference)) as caught:
        pack_bundle(**given)
    assert message in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_stays(tmp_path: Path) -> None:
    """Without force, and force replaces it."""
    arguments: dict[str, Any] = {"model_name": "m", "version": "1", "backend": "http", "export_path": tmp_path}
    pack_bundle(**arguments)
    with pytest.raises(InvalidArchive, match=r"m\.bundle exists: give --force"):
        pack_bundle(**arguments)
    pack_bundle(**arguments, force=True)


def test_links_out_of_the_directory_are_refused(tmp_path: Path) -> None:
    """What a bundle would hold lies in its directory."""
    directory = written(tmp_path / "source", TRITON)
    (directory / "1/evil").symlink_to("/etc/passwd")
    with pytest.raises(InvalidArchive, match="is a symbolic link out of its directory"):
        pack_bundle(model_name="m", version="1", backend="open-inference", directory=directory, export_path=tmp_path)


def test_stated_answers_become_golden_ones(tmp_path: Path) -> None:
    """A V2 response is what a pod gives: Marway's name and version, the request's id; plain values stay as they are."""
    theirs = {"model_name": "whatever", "model_version": "1", "outputs": OUTPUTS}
    examples = [
        Example(V2, theirs),
        Example({"inputs": V2["inputs"]}, {"id": "x", "outputs": OUTPUTS}),
        Example([1.0], 3),
        Example("text", "answer"),
        Example({"a": 1}, {"outputs": 5}),
    ]
    found = packed(
        tmp_path, TRITON, examples=examples, tolerance=Tolerance(relative=0.1), golden_file=tmp_path / "g.json"
    )
    assert found.golden is not None
    document = decode_golden((tmp_path / "g.json").read_bytes(), source="g")
    assert document == found.golden
    assert (document.archive_sha256, document.source, document.batch) == (found.sha256, "given", False)
    assert document.tolerance.relative == 0.1
    named = {"model_name": "m", "model_version": "1.0"}
    assert [each.answer.value for each in document.examples] == [
        named | {"id": "7", "outputs": OUTPUTS},
        named | {"outputs": OUTPUTS},
        3,
        "answer",
        {"outputs": 5},
    ]
    assert [each.answer.kind for each in document.examples] == ["json", "json", "json", "text", "json"]
    info = check_bundle(found.path)
    assert [each.sha256 for each in info.examples] == [each.input_sha256 for each in document.examples]
    assert info.examples[3].data == b"text"


def test_inspecting_tells_what_is_wrong(tmp_path: Path) -> None:
    """The scanner's words for what is damaged, with what could be read before."""
    found = packed(tmp_path, TRITON)
    data = found.path.read_bytes()
    found.path.write_bytes(data.replace(b"weights", b"wEIGHTS"))
    info = inspect_bundle(found.path)
    assert info.problems == ("entry 'model/1/model.onnx' is damaged: its CRC does not match",)
    with pytest.raises(InvalidArchive, match=r"m\.bundle: entry 'model/1/model\.onnx' is damaged"):
        check_bundle(found.path)
    found.path.write_bytes(data[:-5])
    assert "cut short" in inspect_bundle(found.path).problems[0]
    with pytest.raises(MarwayError, match="does not exist"):
        inspect_bundle(tmp_path / "gone.bundle")
