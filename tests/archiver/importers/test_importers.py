"""Models of other libraries: what is read of them, and what is refused. The models are tried in tests/handlers."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from marway.archives.entries import from_bytes
from marway.errors import InvalidArchive, InvalidInput
from marway.records import Signature, TensorSpec
from marway_archiver.cli.pack import pack_model
from marway_archiver.importers.huggingface import import_huggingface
from marway_archiver.importers.importing import ImportKind, pack_imported
from marway_archiver.importers.mlflow import import_mlflow
from marway_archiver.importers.sklearn import import_sklearn
from marway_archiver.importers.torchscript import import_torchscript
from marway_archiver.publishing.facts import (
    ARCHIVE_FACTS,
    RecordFacts,
    encode_archive_facts,
    with_archive_facts,
)

MLMODEL = """\
flavors:
  python_function: {loader_module: mlflow.sklearn, python_version: 3.11.7}
  sklearn: {sklearn_version: 1.9.1}
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}, {"type": "string", "name": "b"}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]'
"""


def torch_file(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name in names:
            written.writestr(f"model/{name}", b"x")
    return path


def huggingface(directory: Path, *names: str, **config: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"], **config}))
    for name in names:
        (directory / name).write_bytes(b"x")
    return directory


class TestSklearn:
    def test_the_version_is_read_and_the_file_never_loaded(self, tmp_path: Path) -> None:
        """What wrote the file is in its bytes; nothing of a pickle is run to find it."""
        model = tmp_path / "model.pkl"
        harmful = b"\x80\x04cbuiltins\nexit\n(tR."
        model.write_bytes(pickle.dumps({"_sklearn_version": "1.7.2", "pandas": 1}, 4) + harmful)
        found = import_sklearn(tmp_path)
        assert found.requirements == ("scikit-learn==1.7.2",)
        assert found.framework == ("scikit-learn", "1.7.2")
        assert "pickle" in found.warnings[0]

    def test_classes_of_the_training_script_are_refused(self, tmp_path: Path) -> None:
        """What only __main__ had cannot be loaded by any worker."""
        (tmp_path / "model.joblib").write_bytes(b"\x80\x04\x8c\x08__main__\x94\x8c\x05Model\x94\x93.")
        with pytest.raises(InvalidArchive, match="__main__"):
            import_sklearn(tmp_path)

    def test_one_file_is_meant(self, tmp_path: Path) -> None:
        """No file, several, and one of another kind are each said."""
        with pytest.raises(InvalidArchive, match="holds no scikit-learn model"):
            import_sklearn(tmp_path)
        for name in ("a.pkl", "b.pkl"):
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InvalidArchive, match=r"a\.pkl and b\.pkl"):
            import_sklearn(tmp_path)
        with pytest.raises(InvalidArchive, match="does not exist"):
            import_sklearn(tmp_path / "gone")
        (tmp_path / "model.txt").write_text("x")
        with pytest.raises(InvalidArchive, match="ends with"):
            import_sklearn(tmp_path / "model.txt")


class TestTorchScript:
    def test_its_signature_lies_beside_it(self, tmp_path: Path) -> None:
        """TorchScript says nothing of shapes: what a file beside it says goes into archive and record."""
        torch_file(tmp_path / "model.pt", "code/__torch__.py", "constants.pkl", "data.pkl")
        assert "float32" in import_torchscript(tmp_path).warnings[0]
        said = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
        (tmp_path / "signature.json").write_text(json.dumps(said))
        found = import_torchscript(tmp_path)
        assert found.signature.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
        assert json.loads(found.add_files["signature.json"]) == said
        (tmp_path / "signature.json").write_text('{"inputs": 1}')
        with pytest.raises(InvalidArchive, match="is no signature"):
            import_torchscript(tmp_path)

    def test_weights_are_no_torchscript(self, tmp_path: Path) -> None:
        """A state dict or a pickled module is told from a program, with what to do about it."""
        weights = torch_file(tmp_path / "weights.pt", "data.pkl", "version")
        with pytest.raises(InvalidArchive, match=r"torch\.jit\.script"):
            import_torchscript(weights)
        (tmp_path / "old.pt").write_bytes(pickle.dumps({}))
        with pytest.raises(InvalidArchive, match="zip"):
            import_torchscript(tmp_path / "old.pt")


class TestMlflow:
    def test_the_signature_and_the_flavor_are_read(self, tmp_path: Path) -> None:
        """Columns and tensors become the record's signature; the library is that of the other flavor."""
        (tmp_path / "MLmodel").write_text(MLMODEL)
        with pytest.raises(InvalidArchive, match=r"requirements\.txt"):
            import_mlflow(tmp_path)
        (tmp_path / "requirements.txt").write_text("mlflow==3\n")
        found = import_mlflow(tmp_path)
        assert found.framework == ("sklearn", "1.9.1")
        assert [(each.name, each.datatype) for each in found.signature.inputs] == [("a", "FP64"), ("b", "BYTES")]
        assert found.signature.outputs == (TensorSpec(name="output", datatype="FP32", shape=(-1, 3)),)
        assert "trust" in found.warnings[0]
        (tmp_path / "MLmodel").write_text("flavors: {python_function: {}, sklearn: null}\n")
        assert import_mlflow(tmp_path).framework == ("sklearn", None)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("flavors: {spark: {}}\n", "python_function"),
            ("nothing: 1\n", "not what MLflow writes"),
            ("[" * 3_000, "not what MLflow writes"),
            (MLMODEL.replace("double", "double\\"), "signature"),
        ],
    )
    def test_what_cannot_be_served_is_refused(self, tmp_path: Path, text: str, said: str) -> None:
        """A directory without a flavor that Python calls, or that MLflow did not write, is refused with why."""
        (tmp_path / "requirements.txt").write_text("mlflow\n")
        (tmp_path / "MLmodel").write_text(text)
        with pytest.raises(InvalidArchive, match=said):
            import_mlflow(tmp_path)


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "marway_archiver.importers.huggingface.pinned", lambda package, what: f"{package}==1"
        )  # not in this environment: tests/backends has one with it

    def test_what_is_served_is_read_from_the_class(self, tmp_path: Path) -> None:
        """The class of the model says the task; pickled weights stay away where safe ones are there."""
        directory = huggingface(
            tmp_path / "m", "model.safetensors", "pytorch_model.bin", "tokenizer_config.json", "README.md", "vocab.txt"
        )
        found = import_huggingface(directory)
        names = [each.name for each in found.extra_files]
        assert names == ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
        assert json.loads(found.add_files["huggingface.json"]) == {"task": "text-classification"}
        assert found.warnings == ()
        (directory / "model.safetensors").unlink()
        assert "pickle" in import_huggingface(directory).warnings[0]

    @pytest.mark.parametrize(
        ("names", "config", "said"),
        [
            (("model.safetensors",), {}, "tokenizer"),
            (("tokenizer_config.json", "training_args.bin"), {}, "no weights"),
            (("model.safetensors", "tokenizer_config.json"), {"auto_map": {}}, "code of its own"),
            (("model.safetensors",), {"architectures": ["WhisperForConditionalGeneration"]}, "Whisper"),
            (("model.safetensors",), {"architectures": None}, "no named class"),
            (("model.safetensors",), {"architectures": 7}, "no named class"),
            (("model.safetensors",), {"architectures": ["ViTForImageClassification"]}, "preprocessor"),
        ],
    )
    def test_what_cannot_be_served_is_refused(
        self, tmp_path: Path, names: tuple[str, ...], config: dict[str, Any], said: str
    ) -> None:
        """Missing parts, code of the directory's own and other kinds of models are each said."""
        with pytest.raises(InvalidArchive, match=said):
            import_huggingface(huggingface(tmp_path / "m", *names, **config))
        with pytest.raises(InvalidArchive, match=r"config\.json"):
            import_huggingface(tmp_path)


def test_an_archive_tells_its_record_what_the_model_said(tmp_path: Path) -> None:
    """Facts in the archive hold where the publisher said nothing; where they said something, that holds."""
    signature = Signature(inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),))
    data = encode_archive_facts(framework="onnx", framework_version=None, algorithm="onnx", signature=signature)
    entries = {ARCHIVE_FACTS: from_bytes(ARCHIVE_FACTS, data)}
    said = with_archive_facts(RecordFacts(framework="mine"), entries)
    assert (said.framework, said.algorithm, said.signature) == ("mine", "onnx", signature)
    assert with_archive_facts(RecordFacts(), {}) == RecordFacts()
    with pytest.raises(InvalidArchive, match="damaged"):
        with_archive_facts(RecordFacts(), {ARCHIVE_FACTS: from_bytes(ARCHIVE_FACTS, b"[]")})


def test_an_imported_model_is_packed_with_its_handler(tmp_path: Path) -> None:
    """The archive holds the ready handler with what it shares, the model, its requirements and facts."""
    torch_file(tmp_path / "model.pt", "code/__torch__.py", "constants.pkl", "data.pkl")
    packed = pack_imported(
        ImportKind.torchscript, tmp_path / "model.pt", model_name="m", version="1", export_path=tmp_path
    )
    with zipfile.ZipFile(io.BytesIO(packed.path.read_bytes())) as archive:
        names = set(archive.namelist())
    shared = {"marway_handler_base.py", "marway_handler_rows.py"}
    assert names == {"MAR-INF/MANIFEST.json", ARCHIVE_FACTS, "model.pt", "torchscript.py", *shared}


def test_flags_that_do_not_go_together_are_refused() -> None:
    """A source needs --from, --from a source, and the importer says the handler itself."""
    app = typer.Typer()
    app.command()(pack_model)
    for more, named in (
        (["--from", "onnx"], "DIR"),
        (["directory"], "--from"),
        (["--from", "onnx", ".", "--handler", "x"], "--handler"),
        (["--from", "onnx", ".", "--backend", "native"], "--backend"),
    ):
        refused = CliRunner().invoke(app, ["--model-name", "m", "--version", "1", *more])
        assert isinstance(refused.exception, InvalidInput)
        assert named in refused.exception.message
