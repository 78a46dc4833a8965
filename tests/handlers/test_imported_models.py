"""Handlers of imported models: real models of onnx, TorchScript and scikit-learn, singly and in batches."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from marway.errors import InvalidArchive
from marway_archiver.importers.onnx import import_onnx
from marway_archiver.testing import LoadedHandler, assert_batch_correct, bytes_row, json_row, load_handler, text_row

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # models are still saved so
HANDLERS = Path(__file__).parents[2] / "handlers/marway_handlers"
SHARED = [HANDLERS / "marway_handler_base.py", HANDLERS / "marway_handler_rows.py"]


def loaded(handler: str, model: Path, *more: Path) -> LoadedHandler:
    return load_handler(HANDLERS / f"{handler}.py", serialized_file=model, extra_files=[*SHARED, *more])


def onnx_model(path: Path, batch: str | int = "batch", *, outputs: int = 1) -> Path:
    weights = numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "weights")
    shape = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [batch, 3])
    names = ["scores", "same"][:outputs]
    nodes = [helper.make_node("MatMul", ["rows", "weights"], [name]) for name in names]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in names]
    graph = helper.make_graph(nodes, "g", [shape], given, [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_onnx_model_answers_rows_in_one_call(tmp_path: Path) -> None:
    """Lists, an object, a .npy file and raw bytes are one row each, a row that is none fails alone, and so does NaN."""
    npy = io.BytesIO()
    np.save(npy, np.float32([3, 4, 5]))
    rows = [
        json_row([1, 2, 3]),
        json_row({"rows": [[2, 3, 4]]}),
        json_row({"data": {"inputs": [0, 1, 2]}}),
        bytes_row(npy.getvalue()),
        bytes_row(np.float32([7, 8, 9]).tobytes()),
        json_row([1, 2]),
        json_row(["a", "b", "c"]),
        text_row("no numbers"),
    ]
    with loaded("onnx_model", onnx_model(tmp_path / "m.onnx")) as handler:
        answers = handler.ask(*rows)
        assert [each.json() for each in answers[:5]] == [[1, 2], [2, 3], [0, 1], [3, 4], [7, 8]]
        assert [each.status for each in answers] == [200] * 5 + [400] * 3
        assert "wanted is [3]" in answers[5].json()["error"]
        assert_batch_correct(handler, rows)


def test_an_onnx_model_with_weights_in_other_files(tmp_path: Path) -> None:
    """Files with weights go into the archive, no others, and only those of the model's own directory can."""
    model = onnx.load(onnx_model(tmp_path / "small.onnx"))
    apart = tmp_path / "apart"
    (apart / "parts").mkdir(parents=True)
    (apart / "m").write_bytes(b"a file whose short name the model's bytes contain by chance")
    external = {"save_as_external_data": True, "size_threshold": 0, "convert_attribute": True}
    onnx.save_model(model, apart / "m.onnx", location="weights.bin", **external)
    assert import_onnx(apart / "m.onnx").extra_files == (apart / "weights.bin",)
    onnx.save_model(onnx.load(apart / "m.onnx"), apart / "m.onnx", location="parts/weights.bin", **external)
    with pytest.raises(InvalidArchive, match=r"weights in parts/weights\.bin: save it"):
        import_onnx(apart / "m.onnx")


def test_an_onnx_model_of_one_row_a_call_and_of_several_outputs(tmp_path: Path) -> None:
    """A first dimension fixed to 1 is served row by row; several outputs are named; a fixed batch is refused."""
    with loaded("onnx_model", onnx_model(tmp_path / "m.onnx", 1, outputs=2)) as handler:
        first, second = handler.ask(json_row([1, 2, 3]), json_row([4, 5, 6]))
        assert first.json() == {"scores": [1, 2], "same": [1, 2]}
        assert second.json()["scores"] == [4, 5]
    found = import_onnx(tmp_path)
    assert found.signature.inputs[0].shape == (-1, 3)
    assert "one row" in found.warnings[0]
    with pytest.raises(InvalidArchive, match="dynamic"):
        import_onnx(onnx_model(tmp_path / "fixed.onnx", 4))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidArchive, match="cannot be run by onnxruntime"):
        import_onnx(tmp_path / "broken.onnx")


class Two(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "first": a[:, 0] / b[:, 0]}


def test_a_torchscript_model_takes_what_its_signature_says(tmp_path: Path) -> None:
    """Several inputs come by name, types are held to, outputs keep their names, and what is not finite fails alone."""
    model = tmp_path / "model.pt"
    torch.jit.script(Two()).save(str(model))
    signature = tmp_path / "signature.json"
    inputs = [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}, {"name": "b", "datatype": "INT64", "shape": [-1, 2]}]
    signature.write_text(json.dumps({"inputs": inputs}))
    rows = [
        json_row({"a": [1, 2], "b": [2, 4]}),
        json_row({"data": {"a": [0.5, 2], "b": [1, 4]}}),
        json_row({"a": [1, 2], "b": [0.5, 4]}),
        json_row({"a": [1, 2]}),
        json_row({"a": [1, 2], "b": [0, 4]}),
    ]
    with loaded("torchscript", model, signature) as handler:
        answers = handler.ask(*rows)
        assert answers[0].json() == {"sum": [3, 6], "first": 0.5}
        assert answers[1].json() == {"sum": [1.5, 6], "first": 0.5}
        assert [each.status for each in answers] == [200, 200, 400, 400, 500]
        assert_batch_correct(handler, rows)


def test_a_torchscript_model_without_a_signature_takes_one_tensor_of_any_shape(tmp_path: Path) -> None:
    """Rows of different shapes go to the model in calls of their own."""
    model = tmp_path / "model.pt"
    torch.jit.script(torch.nn.ReLU()).save(str(model))
    rows = [json_row([1, -2]), json_row([[1, -1], [2, 3]]), json_row({"instances": [-5, 6]}), json_row("text")]
    with loaded("torchscript", model) as handler:
        answers = handler.ask(*rows)
        assert [each.json() for each in answers[:3]] == [[1, 0], [[1, 0], [2, 3]], [0, 6]]
        assert answers[3].status == 400
        assert_batch_correct(handler, rows)


@pytest.mark.extended  # imports scikit-learn; how its files are read is in tests/archiver/importers
def test_sklearn_models_answer_by_what_they_are(tmp_path: Path) -> None:
    """Classifiers give probabilities, pipelines of texts take texts, regressors give values, scalers vectors."""
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = load_digits()
    images = digits.data[:300] / 16

    def of(model: object) -> LoadedHandler:
        joblib.dump(model, tmp_path / "model.joblib")
        return loaded("sklearn_model", tmp_path / "model.joblib")

    with of(LogisticRegression(max_iter=500).fit(images, digits.target[:300])) as handler:
        rows = [json_row(images[0].tolist()), json_row({"data": [images[7].tolist()]}), json_row([1, 2]), text_row("x")]
        answers = handler.ask(*rows)
        assert [each.status for each in answers] == [200, 200, 400, 400]
        assert [each.json()["label"] for each in answers[:2]] == [0, 7]
        assert_batch_correct(handler, rows)
    texts = ["good fine", "bad awful", "fine nice", "terrible bad"]
    with of(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["+", "-", "+", "-"])) as handler:
        answers = handler.ask(text_row("nice"), json_row({"text": "awful"}), json_row([1]))
        assert [each.json().get("label") for each in answers] == ["+", "-", None]
    with of(LinearRegression().fit([[0, 1], [1, 1], [2, 1]], [1, 3, 5])) as handler:
        assert handler.ask(json_row([3, 1]))[0].json()["value"] == pytest.approx(7)
    with of(StandardScaler().fit([[0.0], [2.0]])) as handler:
        assert handler.ask(json_row([2]))[0].json() == {"embedding": [1.0]}
