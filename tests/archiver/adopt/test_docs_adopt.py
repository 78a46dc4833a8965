"""docs/adopt.md: its commands run, in their order, over sources as it describes them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from marway_archiver.adopt.sources.kinds import KINDS
from support.in_process import Marway

Mar = Callable[..., Path]
PAGE = (Path(__file__).parents[3] / "docs" / "adopt.md").read_text()
COMMANDS = re.findall(r"^\$ marway (adopt .*)$", PAGE, re.MULTILINE)
OF_A_SERVER = " --from "


def test_the_page_names_every_kind() -> None:
    """Each kind of source has its row, and the page's commands are found."""
    assert re.findall(r"^\| `([a-z]+)` \| ", PAGE, re.MULTILINE)[:5] == [
        "torchserve",
        "kserve",
        "modelmesh",
        "triton",
        "mlserver",
    ]
    assert sorted(KINDS) == ["kserve", "mlserver", "modelmesh", "torchserve", "triton"]
    assert len(COMMANDS) >= 6


@pytest.mark.extended  # each command publishes; what they call, test_adopting.py and sources/ call
def test_the_pages_commands_run(
    tmp_path: Path, mar: Mar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the page takes over its source, in one registry."""
    mar(tmp_path / "shop" / "model_store", "words", "1.0", file="words_v1.mar")
    mar(tmp_path / "shop" / "model_store", "words", "2.0", file="words_v2.mar")
    says = {"minWorkers": 1, "maxWorkers": 2, "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120}
    models = {
        "words": {
            version: {**says, "marName": f"words_v{version[0]}.mar", "defaultVersion": version == "2.0"}
            for version in ("1.0", "2.0")
        }
    }
    logs = tmp_path / "shop" / "logs" / "config"
    logs.mkdir(parents=True)
    (logs / "20240601101112123-shutdown.cfg").write_text(f"model_snapshot={json.dumps({'models': models})}\n")
    mar(tmp_path / "volume" / "model-store", "mnist")
    (tmp_path / "services.yaml").write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: torchserve}\n"
        "spec: {predictor: {pytorch: {storageUri: 'pvc://model-pv-claim'}}}\n"
    )
    mar(tmp_path / "bucket" / "mar", "digits")
    (tmp_path / "predictors.yaml").write_text(
        "apiVersion: serving.kserve.io/v1alpha1\nkind: Predictor\nmetadata: {name: digits}\n"
        "spec: {modelType: {name: pytorch-mar}, path: mar/digits.mar, storage: {s3: {secretKey: none, bucket: "
        "modelmesh-example-models}}}\n"
    )
    (tmp_path / "repository" / "add" / "1").mkdir(parents=True)
    (tmp_path / "repository" / "add" / "1" / "model.py").write_text("# a model\n")
    (tmp_path / "repository" / "add" / "config.pbtxt").write_text('backend: "python"\n')
    (tmp_path / "mlserver" / "iris").mkdir(parents=True)
    (tmp_path / "mlserver" / "iris" / "model-settings.json").write_text('{"implementation": "models.Iris"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARWAY_REGISTRY", (tmp_path / "registry").as_uri())
    marway = Marway(monkeypatch, capsys)
    for command in COMMANDS:
        if OF_A_SERVER not in command:
            said = marway(*shlex.split(command))
            assert said.code == 0, (command, said)
    listed = json.loads(marway("models", "--json").out)
    assert {each["name"] for each in listed} == {"add", "digits", "iris", "mnist", "words"}
    assert (tmp_path / "shop.md").read_text().startswith("# ")
