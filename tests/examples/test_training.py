import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from support.trained import EXAMPLES, Trained, load_example

BOTH = pytest.mark.parametrize("name", ["intent", "digits"])


@pytest.fixture
def example(request: pytest.FixtureRequest, name: str) -> Trained:
    trained: Trained = request.getfixturevalue(name)
    return trained


@BOTH
def test_held_out_accuracy_is_above_what_is_required(example: Trained) -> None:
    """With its default seed an example does better on held-out data than it demands of itself."""
    assert example.result.accuracy > example.module.REQUIRED_ACCURACY


@pytest.mark.extended  # test_held_out_accuracy_is_above_what_is_required trains, too
@pytest.mark.parametrize("seed", [1, 2])
def test_intent_accuracy_does_not_hang_on_the_seed(seed: int, tmp_path: Path) -> None:
    """Other seeds reach the required accuracy as well."""
    module = load_example("intent")
    assert module.train(tmp_path, seed=seed).accuracy > module.REQUIRED_ACCURACY


@pytest.mark.extended  # test_held_out_accuracy_is_above_what_is_required trains, too
@BOTH
def test_training_again_writes_the_same_bytes(example: Trained, tmp_path: Path) -> None:
    """Two trainings with one seed give equal files, so that publishing a version again is no change."""
    again = example.module.train(tmp_path)
    assert [path.name for path in again.files] == ["model.py", "weights.pt", "labels.json"]
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in example.result.files]


@BOTH
def test_labels_are_listed_in_the_order_of_the_logits(example: Trained) -> None:
    """labels.json is a sorted list of names."""
    labels = json.loads((example.directory / "labels.json").read_text(encoding="utf-8"))
    assert labels == sorted(labels)
    assert len(labels) == {"intent": 12, "digits": 10}[example.name]


@BOTH
def test_a_poor_model_is_not_published(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A held-out accuracy that is too low ends with exit status 1 and one line that says so."""
    module = load_example(name)
    monkeypatch.setattr(module, "EPOCHS", 0)
    monkeypatch.setattr(sys, "argv", ["train.py", "--registry", tmp_path.as_uri()])
    assert module.main() == 1
    error = capsys.readouterr().err
    assert "is not above" in error
    assert len(error.splitlines()) == 1


@BOTH
def test_publishing_hands_over_an_archives_files_and_record(
    name: str, example: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--registry publishes files that exist, with a record of framework, algorithm, signature and training."""
    calls: list[dict[str, Any]] = []

    def publish(**arguments: Any) -> SimpleNamespace:
        paths = [arguments[key] for key in ("handler", "model_file", "serialized_file")] + arguments["extra_files"]
        assert all(Path(path).is_file() for path in paths)
        calls.append(arguments)
        return SimpleNamespace(id="mv_TEST")

    archiver = ModuleType("marway_archiver")
    archiver.publish = publish  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "marway_archiver", archiver)
    where = {"label": "PROD", "gateway": "http://127.0.0.1:8001"}
    example.module.publish_to("file:///registry", example.result, name=name, version="1.0", **where)

    (call,) = calls
    assert (call["model_name"], call["version"]) == (name, "1.0")
    assert {key: call[key] for key in where} == where
    assert len(call["examples"]) >= 3
    assert all(example.is_file() for example in call["examples"] if isinstance(example, Path))
    record = json.loads(json.dumps(call["record"]))
    assert record["framework"] == "pytorch"
    assert record["algorithm"] in ("intent-classification", "digit-classification")
    assert record["signature"]["inputs"][0]["name"] in ("text", "image")
    assert record["training"]["metrics"]["heldout_accuracy"] == pytest.approx(example.result.accuracy, abs=1e-4)
    assert "mv_TEST" in capsys.readouterr().out


@BOTH
def test_a_target_is_wanted(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither --out nor --registry is wrong usage, exit status 2."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit, match="2"):
        load_example(name).main()
    assert "usage" in capsys.readouterr().err


@BOTH
def test_the_readme_tells_the_accuracy_that_training_prints(name: str, example: Trained) -> None:
    """The accuracy that a README states is within two points of the measured one."""
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    stated = float(text.partition("held-out accuracy 0.")[2][:4]) / 10_000
    assert stated == pytest.approx(example.result.accuracy, abs=0.02)
