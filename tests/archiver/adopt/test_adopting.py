"""What was found is published once, its labels set where nobody has set them otherwise."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marway.errors import InvalidInput, RegistryUnavailable
from marway.registry import Registry, open_registry
from marway_archiver.adopt.adopting import Terms, adopt, planned
from marway_archiver.adopt.found import Found
from marway_archiver.adopt.report import Report, document_of
from marway_archiver.adopt.sources.kinds import read_source
from marway_archiver.adopt.sources.options import Options
from marway_archiver.archives import check_archive
from marway_archiver.bundles.checking import check_bundle
from marway_archiver.cli import register
from marway_archiver.workflows.adopting import with_workflows

Mar = Callable[..., Path]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry((tmp_path / "registry").as_uri(), create=True)


@pytest.fixture
def store(tmp_path: Path, mar: Mar) -> Path:
    """A store with two versions, the newer one the default, and one whose archive is damaged."""
    home = tmp_path / "old"
    mar(home / "model-store", "words", "1.0", file="v1.mar")
    mar(home / "model-store", "words", "2.0", file="v2.mar")
    (home / "model-store" / "bad.mar").write_bytes(b"PK")
    models = {
        "words": {
            "1.0": {"marName": "v1.mar", "defaultVersion": False, "minWorkers": 1, "maxWorkers": 1},
            "2.0": {"marName": "v2.mar", "defaultVersion": True, "minWorkers": 1, "maxWorkers": 3},
        },
        "bad": {"1.0": {"marName": "bad.mar", "defaultVersion": True}},
    }
    (home / "config.properties").write_text(f"model_snapshot={json.dumps({'models': models})}\n")
    return home


def outcomes(report: Report) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.model.reference, each.outcome, each.labels) for each in report.adopted]


def test_versions_are_published_once(store: Path, registry: Registry, options: Options) -> None:
    """The first time publishes versions and sets labels; the second time there is nothing new, and nothing is moved."""
    found = read_source(store, options)
    wanted = [("bad/1.0", "refused", ()), ("words/1.0", "published", ()), ("words/2.0", "published", ("PROD",))]
    assert outcomes(planned(found)) == [
        (name, outcome if outcome == "refused" else "planned", ("PROD",) if name == "words/2.0" else labels)
        for name, outcome, labels in wanted
    ]
    assert outcomes(adopt(found, registry, Terms())) == wanted
    assert registry.state("words").labels == {"PROD": "2.0"}
    assert registry.record("words", "2.0").serving.max_workers == 3
    generation = registry.state("words").generation
    assert [outcome for _, outcome, _ in outcomes(adopt(found, registry, Terms()))] == ["refused", "known", "known"]
    assert registry.state("words").generation == generation
    history = list(registry.history("words"))
    assert [entry.note for entry in history if entry.label == "PROD"] == [f"adopted from torchserve {store}"]


def test_a_label_that_was_moved_stays(store: Path, registry: Registry, options: Options) -> None:
    """Where somebody has released another version meanwhile, its label stays, and the verb that moves it is said."""
    found = read_source(store, options)
    adopt(found, registry, Terms())
    registry.release("words", "1.0", label="PROD", by="me", forced=True)
    changed = tuple(
        replace(each, serving=each.serving.model_copy(update={"max_workers": 9, "max_batch_rows": 4}))
        for each in found.models
    )
    report = adopt(replace(found, models=changed), registry, Terms())
    assert registry.state("words").labels == {"PROD": "1.0"}
    messages = report.adopted[2].messages
    assert any("`marway release words 2.0 --label PROD` moves it" in each for each in messages)
    assert any("the source says 9: `marway serving` changes that" in each for each in messages)
    assert any(each.startswith("it has no golden examples") and "--from URL" in each for each in messages)
    assert not any("max_batch_rows" in each for each in messages)


def test_an_archive_of_another_name_is_written_anew(
    tmp_path: Path, mar: Mar, registry: Registry, options: Options
) -> None:
    """A model that TorchServe loads under another name than its manifest's is published under that name."""
    mar(tmp_path / "old" / "store", "words")
    (tmp_path / "old" / "config.properties").write_text("model_store=store\nload_models=shop=words.mar\n")
    report = adopt(read_source(tmp_path / "old", options), registry, Terms())
    assert outcomes(report) == [("shop/1.0", "published", ("PROD",))]
    assert report.adopted[0].repacked == "its manifest calls it words 1.0"
    record = report.adopted[0].record
    assert record is not None
    with registry.open_archive(record.archive) as handle:
        (tmp_path / "copy.mar").write_bytes(handle.read())
    info = check_archive(tmp_path / "copy.mar")
    assert (info.model, info.canonical) == (("shop", "1.0"), True)


def test_an_archive_of_torch_model_archiver_is_written_canonically(
    tmp_path: Path, mar: Mar, registry: Registry, options: Options
) -> None:
    """Bytes that are not canonical are written anew, and that is said; the next time they are known."""
    path = mar(tmp_path / "old", "words")
    with zipfile.ZipFile(path) as ours:
        files = {name: ours.read(name) for name in ours.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as theirs:
        for name, data in reversed(files.items()):
            theirs.writestr(name, data)
    found = read_source(tmp_path / "old", options)
    first, second = (adopt(found, registry, Terms()).adopted[0] for _ in range(2))
    assert (first.outcome, first.repacked) == ("published", "its bytes were not canonical")
    assert second.outcome == "known"


def test_another_archive_of_a_version_is_refused(
    tmp_path: Path, mar: Mar, registry: Registry, options: Options
) -> None:
    """A version that the registry has with other bytes is no one's to replace: that is the one problem told."""
    mar(tmp_path / "old", "words")
    adopt(read_source(tmp_path / "old", options), registry, Terms())
    mar(tmp_path / "new" / "model-store", "other")
    (tmp_path / "new" / "config.properties").write_text("load_models=words=other.mar\n")
    (adopted,) = adopt(read_source(tmp_path / "new", options), registry, Terms()).adopted
    assert (adopted.outcome, adopted.record) == ("refused", None)
    assert "words 1.0" in (adopted.problem or "")
    assert "give its archive a version of its own" in (adopted.problem or "")


def test_versions_of_triton_become_bundles_of_their_own(tmp_path: Path, registry: Registry, options: Options) -> None:
    """Each served version is a bundle with the configuration and its own directory alone."""
    for version in ("1", "2"):
        (tmp_path / "repository" / "add" / version).mkdir(parents=True)
        (tmp_path / "repository" / "add" / version / "model.py").write_text(f"# {version}\n")
    config = 'backend: "python"\nmax_batch_size: 4\nversion_policy { all { } }\n'
    (tmp_path / "repository" / "add" / "config.pbtxt").write_text(config)
    report = adopt(read_source(tmp_path / "repository", options), registry, Terms())
    assert outcomes(report) == [("add/1", "published", ()), ("add/2", "published", ("PROD",))]
    record = registry.record("add", "2")
    assert (record.backend, record.serving.max_batch_rows) == ("open-inference", 4)
    with registry.open_archive(record.archive) as handle:
        (tmp_path / "copy.bundle").write_bytes(handle.read())
    names = {each.name for each in check_bundle(tmp_path / "copy.bundle").files}
    assert names == {"MARWAY-INF/bundle.json", "model/2/model.py", "model/config.pbtxt"}


def test_links_out_of_a_model_are_refused(tmp_path: Path, registry: Registry, options: Options) -> None:
    """A directory with a symbolic link to a file elsewhere is one model's problem: that file is not published."""
    (tmp_path / "secret").write_text("word")
    for name in ("good", "bad"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "model-settings.json").write_text('{"implementation": "models.Iris"}')
    (tmp_path / "tree" / "bad" / "weights").symlink_to(tmp_path / "secret")
    report = adopt(read_source(tmp_path / "tree", replace(options, version="7")), registry, Terms())
    assert outcomes(report) == [("bad/7", "refused", ()), ("good/7", "published", ("PROD",))]
    assert "is a symbolic link out of its directory" in (report.adopted[0].problem or "")


def test_workflows_of_a_store_become_graphs(tmp_path: Path, mar: Mar, registry: Registry, options: Options) -> None:
    """A `.war` in the store is a graph of the store's models, once; one that is damaged is told of."""
    store = tmp_path / "model-store"
    mar(store, "words")
    with zipfile.ZipFile(store / "steps.war", "w") as war:
        manifest = {"workflow": {"workflowName": "steps", "specFile": "steps.yaml"}}
        war.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        war.writestr(
            "steps.yaml", "models:\n  first: {url: words.mar}\n  then: {url: words.mar}\ndag:\n  first: [then]\n"
        )
    (store / "bad.war").write_bytes(b"PK")
    found = read_source(tmp_path, options)
    dry = with_workflows(planned(found), None, Terms(), "PROD")
    assert outcomes(dry)[1:] == [("bad/1.0", "refused", ()), ("steps/1.0", "planned", ("PROD",))]
    for outcome in ("published", "known"):
        report = with_workflows(adopt(found, registry, Terms()), registry, Terms(), "PROD")
        assert outcomes(report) == [
            ("words/1.0", outcome, ("PROD",)), ("bad/1.0", "refused", ()), ("steps/1.0", outcome, ("PROD",)),
        ]  # fmt: skip
    assert registry.record("steps", "1.0").backend == "graph"


def test_a_report_says_all_that_was_found(store: Path, registry: Registry, options: Options) -> None:
    """The document has every version, every setting with its outcome, and every problem."""
    document = document_of(adopt(read_source(store, options), registry, Terms()))
    assert json.loads(json.dumps(document)) == document
    assert [each["outcome"] for each in document["models"]] == ["refused", "published", "published"]
    assert document["models"][2]["serving"] == {"min_workers": 1, "max_workers": 3}
    assert document["models"][2]["endpoint"]["version"] is None
    assert {each["outcome"] for model in document["models"] for each in model["settings"]} == {"kept"}


def test_a_registry_that_is_not_there_stops_all(tmp_path: Path, store: Path, options: Options) -> None:
    """Without a registry nothing is tried: that is no one model's problem."""
    found: Found = read_source(store, options)
    with pytest.raises(RegistryUnavailable):
        adopt(found, open_registry((tmp_path / "none").as_uri()), Terms())


def test_the_verb_prints_and_exits(store: Path, tmp_path: Path) -> None:
    """`marway adopt` tells what is found and what becomes of it, writes the report, and fails for what is not."""
    app = typer.Typer()
    register(app)
    report, registry = tmp_path / "report.json", (tmp_path / "registry").as_uri()
    flags = ["--registry", registry, "--create-registry", "--report", str(report)]
    done = CliRunner().invoke(app, ["adopt", str(store), *flags])
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.message == "1 of 3 versions cannot be taken over: bad/1.0"
    assert "words  2.0      torchserve  PROD    published" in done.stdout
    assert json.loads(report.read_text())["kind"] == "torchserve"
    dry = CliRunner().invoke(app, ["adopt", str(store), "--dry-run", "--json", "--storage", "nothing"])
    assert isinstance(dry.exception, InvalidInput)
    assert "--storage nothing: give the address and the directory" in dry.exception.message
