"""TorchServe's model store, its configuration and its snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidInput
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.adopt.sources.kinds import read_source
from marway_archiver.adopt.sources.options import Options

Mar = Callable[..., Path]


def snapshot(models: dict[str, Any]) -> str:
    return json.dumps({"name": "x-shutdown.cfg", "modelCount": len(models), "models": models})


def settings_of(model: FoundModel) -> dict[str, tuple[str, str]]:
    return {each.name: (each.outcome, each.becomes) for each in model.settings}


def by_reference(found: Found) -> dict[str, FoundModel]:
    return {each.reference: each for each in found.models}


def test_a_snapshot_says_versions_workers_and_the_default(tmp_path: Path, mar: Mar, options: Options) -> None:
    """The last snapshot below `logs/config` is gone by: versions, workers, time-outs, the label at its default."""
    mar(tmp_path / "model_store", "words", "1.0", file="words_v1.mar")
    mar(tmp_path / "model_store", "words", "2.0", file="words_v2.mar")
    mar(tmp_path / "model_store", "other")
    (tmp_path / "model_store" / "steps.war").write_bytes(b"")
    (tmp_path / "config.properties").write_text("load_models=all\n")
    logs = tmp_path / "logs" / "config"
    logs.mkdir(parents=True)
    says = {"marName": "words_v1.mar", "minWorkers": 1, "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 50}
    models = {
        "words": {
            "1.0": {**says, "defaultVersion": False, "responseTimeout": 30, "parallelLevel": 4, "odd": 1},
            "2.0": {**says, "marName": "words_v2.mar", "defaultVersion": True, "startupTimeout": 60, "maxWorkers": 0},
        }
    }
    (logs / "20240501101112123-startup.cfg").write_text("model_snapshot={}")
    (logs / "20240601101112123-shutdown.cfg").write_text(
        f"inference_address=http\\://0.0.0.0\\:9090\nkeystore_pass=word\nnobody_knows=1\nversion=0.12.0\n"
        f"default_response_timeout=77\nmodel_snapshot={snapshot(models)}\n"
    )
    found = read_source(tmp_path, options)
    assert found.kind == "torchserve"
    old, new = by_reference(found)["words/1.0"], by_reference(found)["words/2.0"]
    assert (old.labels, new.labels) == ((), ("PROD",))
    assert old.serving.model_dump(exclude_unset=True) == {
        "min_workers": 1, "max_workers": 2, "max_batch_rows": 4, "predict_timeout_s": 30.0,
    }  # fmt: skip
    assert new.serving.model_dump(exclude_unset=True) == {
        "min_workers": 1, "max_batch_rows": 4, "predict_timeout_s": 77.0, "load_timeout_s": 60.0,
    }  # fmt: skip
    assert (old.endpoint.version, new.endpoint.version) == ("1.0", None)
    assert new.endpoint.url == "http://127.0.0.1:9090"
    outcomes = {name: outcome for name, (outcome, _) in settings_of(old).items()}
    assert outcomes == {
        "marName": "kept", "minWorkers": "kept", "maxWorkers": "kept", "batchSize": "changed", "maxBatchDelay": "none",
        "defaultVersion": "kept", "responseTimeout": "kept", "parallelLevel": "none", "odd": "none",
    }  # fmt: skip
    server = {each.name: each for each in found.settings}
    assert server["keystore_pass"].value == "(hidden)"
    assert "version" not in server
    assert "has no such setting" in server["nobody_knows"].becomes
    notes = "\n".join(found.notes)
    assert "20240601101112123-shutdown.cfg, the last snapshot" in notes
    assert "config.properties is not looked at" in notes
    assert "other.mar is in the store and the server does not load it" in notes
    assert found.workflows == ((tmp_path / "model_store" / "steps.war", tmp_path / "model_store"),)


@pytest.mark.parametrize(
    ("load_models", "wanted"),
    [
        ("all", ["one/1.0", "two/1.0"]),
        ("standalone", ["one/1.0", "two/1.0"]),
        ("two.mar", ["two/1.0"]),
        ("first=one.mar, two.mar", ["first/1.0", "two/1.0"]),
    ],
)
def test_load_models_is_read_as_torchserve_reads_it(
    tmp_path: Path, mar: Mar, options: Options, load_models: str, wanted: list[str]
) -> None:
    """`load_models` chooses archives and may rename them; `models` says what holds for each."""
    store = tmp_path / "store"
    mar(store, "one")
    mar(store, "two")
    models = json.dumps({"two": {"1.0": {"minWorkers": 2, "maxWorkers": 3, "batchSize": 8}}})
    (tmp_path / "config.properties").write_text(f"model_store=store\nload_models={load_models}\nmodels={models}\n")
    found = read_source(tmp_path / "config.properties", options)
    assert [each.reference for each in found.models] == wanted
    assert all(each.problem is None for each in found.models)
    assert by_reference(found)["two/1.0"].serving.max_workers == 3


def test_a_store_alone_is_taken_whole(tmp_path: Path, mar: Mar, options: Options) -> None:
    """Without a configuration all archives are taken; of versions the first gets the label, and that is said."""
    mar(tmp_path, "words", "1.0", file="a.mar")
    mar(tmp_path, "words", "2.0", file="b.mar")
    found = read_source(tmp_path, options)
    assert [(each.reference, each.labels) for each in found.models] == [("words/1.0", ("PROD",)), ("words/2.0", ())]
    assert settings_of(found.models[0])["defaultVersion"][0] == "changed"
    assert any("TorchServe's own defaults hold" in note for note in found.notes)


def test_what_the_archive_itself_says_goes_before(tmp_path: Path, options: Options) -> None:
    """An archive's own configuration beats the snapshot's, as it does in TorchServe, and the change is told."""
    from marway_archiver import pack

    (tmp_path / "handler.py").write_text("def handle(data, context):\n    return data\n")
    (tmp_path / "config.yaml").write_text("minWorkers: 3\nmaxWorkers: 3\nbatchSize: 2\nresponseTimeout: 9\n")
    store = tmp_path / "model-store"
    store.mkdir()
    pack(
        model_name="own", version="1.0", handler=str(tmp_path / "handler.py"), export_path=store,
        config_file=tmp_path / "config.yaml",
    )  # fmt: skip
    says = {"own": {"1.0": {"marName": "own.mar", "minWorkers": 1, "maxWorkers": 1, "defaultVersion": True}}}
    (tmp_path / "config.properties").write_text(f"model_snapshot={snapshot(says)}\n")
    (model,) = read_source(tmp_path, options).models
    assert model.serving.model_dump(exclude_unset=True) == {
        "min_workers": 3, "max_workers": 3, "max_batch_rows": 2, "predict_timeout_s": 9.0, "load_timeout_s": 120.0,
    }  # fmt: skip
    assert settings_of(model)["minWorkers"][0] == "changed"


def test_names_that_marway_has_not_are_changed_and_said(tmp_path: Path, mar: Mar, options: Options) -> None:
    """A model called by a name that cannot be one here gets the nearest, and clients are told of it."""
    mar(tmp_path / "models", "words")
    (tmp_path / "config.properties").write_text("load_models=my words=words.mar\n")
    (model,) = read_source(tmp_path, options).models
    assert (model.name, model.endpoint.model) == ("my-words", "my words")
    assert "clients have to ask for my-words" in model.warnings[0]


def test_what_cannot_be_taken_is_one_models_problem(tmp_path: Path, mar: Mar, options: Options) -> None:
    """An archive that is damaged, missing, elsewhere or out of the store is refused by name; others are taken."""
    store = tmp_path / "store"
    mar(store, "good")
    (store / "bad.mar").write_bytes(b"PK\3\4 nothing")
    (tmp_path / "out.mar").write_bytes(b"x")
    (store / "link.mar").symlink_to(tmp_path / "out.mar")
    names = "good.mar,bad.mar,gone.mar,../out.mar,https://host/x.mar,link.mar"
    (tmp_path / "config.properties").write_text(f"model_store=store\nload_models={names}\n")
    found = read_source(tmp_path / "config.properties", options)
    assert sorted(each.name for each in found.models) == ["bad", "gone", "good", "link", "out", "x"]
    said = " ".join(each.problem or "" for each in found.models)
    assert "is not there in" in said
    assert "leads out of" in said
    assert "is an address: fetch the file" in said
    assert "is a symbolic link out of" in said
    assert by_reference(found)["good/1.0"].problem is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("model_store=/nowhere/at/all\n", "give its directory with --model-store DIR"),
        ("model_store=$$STORE$$\n", "the environment variable 'STORE' of the old server"),
        ("model_store=store\nmodel_snapshot=[]\n", "model_snapshot has no 'models'"),
        ('model_store=store\nmodel_snapshot={"models": {"a": {"1": {}}}}\n', "has no marName"),
        ('model_store=store\nmodel_snapshot={"models": 1, "models": 2}\n', "names 'models' twice"),
        ("model_store=store\nmodels={\n", "models is not JSON"),
        ("model_store=store\nload_models=all\n", "serves no model"),
        ("model_store=store\nmodels=" + "[" * 5000 + "\n", "models is not JSON"),
        ("model_store=store\nmodels=" + "[" * 50 + "]" * 50 + "\n", "nested deeper than 32"),
    ],
)
def test_configurations_that_cannot_be_followed_are_refused(
    tmp_path: Path, options: Options, config: str, words: str
) -> None:
    """One sentence says what is wrong with a configuration, and what to do."""
    (tmp_path / "store").mkdir()
    (tmp_path / "config.properties").write_text(config)
    with pytest.raises(InvalidInput) as caught:
        read_source(tmp_path / "config.properties", options)
    assert words in caught.value.message


def test_the_store_may_be_said(tmp_path: Path, mar: Mar, options: Options) -> None:
    """`--model-store` stands for TorchServe's own flag, in the place of a path of the old machine."""
    mar(tmp_path / "elsewhere", "words")
    (tmp_path / "config.properties").write_text("model_store=/home/model-server/model-store\nload_models=words.mar\n")
    found = read_source(tmp_path, replace(options, model_store=tmp_path / "elsewhere"))
    assert [each.reference for each in found.models] == ["words/1.0"]
