"""Triton's model repository and MLServer's tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.errors import InvalidInput
from marway_archiver.adopt.sources.kinds import read_source
from marway_archiver.adopt.sources.options import Options

CONFIG = """
name: "resnet"
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }]
POLICY
dynamic_batching { max_queue_delay_microseconds: 100 }
"""


def triton(root: Path, name: str, *versions: str, policy: str = "", config: str = CONFIG) -> Path:
    for version in versions:
        (root / name / version).mkdir(parents=True)
        (root / name / version / "model.py").write_text(f"# {version}\n")
    (root / name).mkdir(exist_ok=True, parents=True)
    if config:
        (root / name / "config.pbtxt").write_text(config.replace("POLICY", policy))
    return root


def mlserver(directory: Path, **settings: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model-settings.json").write_text(json.dumps(settings))
    (directory / "model.joblib").write_text("x")
    return directory


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", ["10"]),
        ("version_policy { latest { num_versions: 2 } }", ["2", "10"]),
        ("version_policy: { all { } }", ["1", "2", "10"]),
        ("version_policy { specific { versions: [1, 2] } }", ["1", "2"]),
    ],
)
def test_triton_serves_the_versions_of_its_policy(
    tmp_path: Path, options: Options, policy: str, served: list[str]
) -> None:
    """Each version that is served is one here, by number, the label at the highest; other directories stay away."""
    found = read_source(triton(tmp_path, "resnet", "1", "2", "10", policy=policy), options)
    assert found.kind == "triton"
    assert [each.version for each in found.models] == served
    assert [each.labels for each in found.models] == [()] * (len(served) - 1) + [("PROD",)]
    last = found.models[-1]
    assert last.backend == "open-inference"
    assert set(last.leave_out) == {"1", "2", "10"} - {last.version}
    outcomes = {each.name: each.outcome for each in last.settings}
    assert outcomes["dynamic_batching"] == outcomes["max_batch_size"] == "kept"
    assert outcomes["name"] == "changed"
    unserved = {"1", "2", "10"} - set(served)
    assert any("are not taken" in note for note in found.notes) == bool(unserved)


def test_what_triton_could_not_load_is_each_models_problem(tmp_path: Path, options: Options) -> None:
    """Ensembles, configurations that are none, and versions that are missing are told of by name."""
    triton(tmp_path, "plain", "1", config="")
    triton(tmp_path, "together", "1", config='ensemble_scheduling { step [{ model_name: "plain" }] }')
    triton(tmp_path, "broken", "1", config="name: {")
    triton(tmp_path, "empty", config='name: "empty"')
    triton(tmp_path, "gone", "1", policy="version_policy { specific { versions: [1, 7] } }")
    (tmp_path / "docs").mkdir()
    found = read_source(tmp_path, options)
    problems = {(each.name, each.version): each.problem for each in found.models}
    assert problems["plain", "1"] is None
    assert "make it a graph" in (problems["together", "1"] or "")
    assert "broken" in (problems["broken", "?"] or "")
    assert "has no version directory" in (problems["empty", "?"] or "")
    assert "serves version 7" in (problems["gone", "7"] or "")
    assert any("docs is not looked at" in note for note in found.notes)


def test_mlservers_default_is_its_newest(tmp_path: Path, options: Options) -> None:
    """Versions of one name are ordered as MLServer orders them: by number, and one without a version is newest."""
    implementation = "mlserver_sklearn.SKLearnModel"
    for version in ("2", "10"):
        mlserver(tmp_path / version, name="iris", implementation=implementation, parameters={"version": version})
    mlserver(tmp_path / "x" / "free", implementation=implementation, parameters={"uri": "./model.joblib"})
    (tmp_path / "settings.json").write_text(
        json.dumps({"http_port": 8080, "parallel_workers": 2, "kafka_enabled": True, "cors_settings": {"max_age": 5}})
    )
    found = read_source(tmp_path, options)
    assert found.kind == "mlserver"
    assert [(each.reference, each.labels) for each in found.models] == [
        ("free/1", ("PROD",)), ("iris/2", ()), ("iris/10", ("PROD",)),
    ]  # fmt: skip
    outcomes = {each.name: each.outcome for each in found.settings}
    assert outcomes == {
        "http_port": "elsewhere", "parallel_workers": "elsewhere", "kafka_enabled": "none",
        "cors_settings.max_age": "elsewhere",
    }  # fmt: skip


def test_an_unversioned_model_beside_version_1_gets_a_free_one(tmp_path: Path, options: Options) -> None:
    """A model without a version keeps its name and gets a version that no other has."""
    mlserver(tmp_path / "a", name="iris", implementation="a.B", parameters={"version": "1"})
    mlserver(tmp_path / "b", name="iris", implementation="a.B")
    found = read_source(tmp_path, options)
    assert [(each.version, each.labels) for each in found.models] == [("1", ()), ("2", ("PROD",))]
    assert "it becomes 2" in found.models[1].warnings[0]


def test_models_below_models_stay_apart(tmp_path: Path, options: Options) -> None:
    """A directory with models below it gives a bundle of its own files alone, without the server's settings."""
    mlserver(tmp_path, name="outer", implementation="a.B")
    mlserver(tmp_path / "inner", name="inner", implementation="a.B")
    found = {each.name: each for each in read_source(tmp_path, options).models}
    assert found["outer"].leave_out == ("inner", "settings.json")


@pytest.mark.parametrize(
    ("uri", "near"),
    [
        ("/mnt/models/model.joblib", "./model.joblib"),
        ("/mnt/models", "./"),
        ("./model.joblib", None),
        ("s3://b/x", None),
    ],
)
def test_absolute_paths_of_mlserver_are_brought_beside_it(
    tmp_path: Path, options: Options, uri: str, near: str | None
) -> None:
    """A path of the old machine is written anew where its file is there; others stay as they are."""
    mlserver(tmp_path / "iris", implementation="a.B", parameters={"uri": uri})
    (model,) = read_source(tmp_path, options).models
    written = {name: json.loads(data) for name, data in model.add_files.items()}
    assert [each["parameters"]["uri"] for each in written.values()] == ([] if near is None else [near])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"parameters": {"uri": "/srv/other.bin"}}', "copy it beside that file"),
        ('{"parameters": {"uri": "../../etc/passwd"}}', "out of its directory"),
        ('{"name": "///"}', "cannot be a model name"),
        ("[1]", "is no object of settings"),
        ("{", "is not JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_settings_that_cannot_be_followed_are_one_models_problem(
    tmp_path: Path, options: Options, settings: str, words: str
) -> None:
    """What is wrong with one model's settings is said of that model."""
    mlserver(tmp_path / "good", implementation="a.B")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model-settings.json").write_text(settings)
    found = read_source(tmp_path, options)
    problems = [each.problem for each in found.models if each.problem is not None]
    assert len(problems) == 1
    assert words in problems[0]


def test_a_path_that_is_no_source_says_what_sources_are(tmp_path: Path, options: Options) -> None:
    """An empty directory, a file of another kind and nothing at all are refused with what would be taken."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    for path in (tmp_path / "empty", tmp_path / "file.txt"):
        with pytest.raises(InvalidInput, match=r"no source that is known\. kserve: YAML"):
            read_source(path, options)
    with pytest.raises(InvalidInput, match="does not exist"):
        read_source(tmp_path / "gone", options)


def test_a_path_of_two_kinds_has_to_be_told(tmp_path: Path, options: Options) -> None:
    """Where a directory may be of two platforms, `--kind` says which."""
    triton(tmp_path, "resnet", "1")
    mlserver(tmp_path / "iris", implementation="a.B")
    with pytest.raises(InvalidInput, match="mlserver or triton: say which with --kind"):
        read_source(tmp_path, options)
    assert read_source(tmp_path, options, kind="triton").models[0].name == "resnet"
