"""Archives that something else than `publish` put into the registry are looked at before TorchServe loads them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from marway.archives.rules import ASYNC_CALLS_MAX, NOT_SERVED, Calling
from marway.errors import DeadlineExceeded, LoadFailed
from marway.worker.sequences import ORIGINAL, keeps_sequences
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.backends.torchserve.archive import Asked, asked_by, checked, without_sequences
from marway_sidecar.backends.torchserve.classify import died_or_late


def check(path: Path, config: str | None = None, *, enveloped: bool = True, **files: bytes) -> Calling:
    """Check an archive with this configuration file, and return how its handler is to be called."""
    manifest = {"model": {"modelName": "m", "configFile": None if config is None else "config.yaml"}}
    with zipfile.ZipFile(path / "m.mar", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, data in {**files, **({"config.yaml": config.encode()} if config is not None else {})}.items():
            target.writestr(name, data)
    return checked(
        ServedModel(
            server_name="mv_M", name="m", version="1", archive=path / "m.mar", workers=1, load_timeout_s=1,
            predict_timeout_s=1, max_workers=2,
        ),
        enveloped=enveloped,
    ).calling  # fmt: skip


@pytest.mark.parametrize("key", NOT_SERVED)
def test_fault_a_setting_that_is_not_served(tmp_path: Path, key: str) -> None:
    """A setting with which every prediction would fail is refused with its name and the reason."""
    with pytest.raises(LoadFailed) as caught:
        check(tmp_path, f"{key}: 2\n")
    assert f"its configuration file says {key}, which is not served: {NOT_SERVED[key].why}" in caught.value.message


def test_more_workers_than_allowed_are_refused(tmp_path: Path) -> None:
    """`minWorkers` may not be more than the version's `max_workers`."""
    with pytest.raises(LoadFailed, match=r"start 3 workers \(minWorkers.*allow 2 \(max_workers\)"):
        check(tmp_path, "minWorkers: 3\nmaxWorkers: 3\n")


def test_fault_a_bomb(tmp_path: Path) -> None:
    """100 KiB that unpack to 100 MiB are not unpacked."""
    with pytest.raises(LoadFailed, match="it is a bomb: it unpacks to more than 200 times"):
        check(tmp_path, zeros=bytes(100 * 1024**2))


def test_all_else_is_left_to_torchserve(tmp_path: Path) -> None:
    """Settings of the handler's own, those switched off, and files that are no archive pass."""
    check(tmp_path)
    check(tmp_path, "minWorkers: 2\nmaxWorkers: 2\nuseVenv: false\nlabels: [cat]\nh: {a: &a [1], b: *a}\n")
    check(tmp_path, "- no mapping\n")
    (tmp_path / "x").write_text("no archive")
    checked(ServedModel("mv_M", "m", "1", tmp_path / "x", 1, 1.0, 1.0), enveloped=True)


def test_how_a_handler_is_called(tmp_path: Path) -> None:
    """Many calls at once, or all rows again and again, are for workers of Marway's runtime."""
    assert check(tmp_path, "batchSize: 4\n", enveloped=False) == Calling()
    assert check(tmp_path, "asyncCommunication: true\n") == Calling("async", ASYNC_CALLS_MAX)
    assert check(tmp_path, "continuousBatching: true\nbatchSize: 4\n") == Calling("continuous", 4)
    assert check(tmp_path, "continuousBatching: true\n") == Calling("continuous", 1)
    for key in ("asyncCommunication", "continuousBatching"):
        with pytest.raises(LoadFailed, match=f"says {key}, which is served by workers of Marway's runtime"):
            check(tmp_path, f"{key}: true\n", enveloped=False)
        with pytest.raises(LoadFailed, match=f"says {key}, which is neither true nor false"):
            check(tmp_path, f"{key}: 1\n")
    with pytest.raises(LoadFailed, match="asyncCommunication and continuousBatching"):
        check(tmp_path, "asyncCommunication: true\ncontinuousBatching: true\n")


def test_how_long_a_call_may_take(tmp_path: Path) -> None:
    """A file's `responseTimeout` counts, and TorchServe's own where the file does not say; without one, ours."""
    for config, seconds in (("responseTimeout: 7\n", 7.0), ("batchSize: 1\n", 120.0), (None, None)):
        check(tmp_path, config)
        model = ServedModel("mv_M", "m", "1", tmp_path / "m.mar", 1, 1.0, 1.0)
        assert checked(model, enveloped=True) == asked_by(model) == Asked(Calling(), seconds)


def test_a_worker_that_took_too_long_is_no_dead_one() -> None:
    """TorchServe says the same of both; a call that took its time is late, and is not made again."""
    model = ServedModel("mv_M", "m", "1", Path("x"), 1, 1.0, 30.0)
    died = WorkerDied("it died")
    assert died_or_late(died, model, 29.9) is died
    assert isinstance(died_or_late(died, model, 30.1), DeadlineExceeded)
    assert isinstance(died_or_late(died, replace(model, answer_within_s=2.0), 2.1), DeadlineExceeded)


def test_continuous_batching_has_one_worker(tmp_path: Path) -> None:
    """With several, TorchServe's threads wait for one another, and rows for ever."""
    check(tmp_path, "continuousBatching: true\n")
    model = ServedModel("mv_M", "m", "1", tmp_path / "m.mar", 2, 1.0, 1.0)
    with pytest.raises(LoadFailed, match="ask for 2 workers"):
        checked(model, enveloped=True)


def test_torchserve_hears_nothing_of_sequences(tmp_path: Path) -> None:
    """It gets a copy without them and without workers of their own, whose handler finds what its archive says."""
    said = "sequenceBatching: true\nminWorkers: 2\nmaxWorkers: 2\nresponseTimeout: 7\nmaxNumSequence: 9\nmine: {a: 1}\n"
    with pytest.raises(LoadFailed, match="sequenceBatching, of which its record knows nothing"):
        check(tmp_path, said)
    model = ServedModel("mv_M", "m", "1", tmp_path / "m.mar", 1, 1.0, 1.0, max_workers=1, sequences=True)
    with pytest.raises(LoadFailed, match="sequenceBatching, which is served by workers of Marway's runtime"):
        checked(model, enveloped=False)
    assert checked(model, enveloped=True) == Asked(Calling(), 7.0)
    before = model.archive.read_bytes()
    with without_sequences(model) as given:
        with zipfile.ZipFile(given.archive) as archive:
            assert archive.testzip() is None
            assert sorted(archive.namelist()) == ["MAR-INF/MANIFEST.json", "config.yaml"]
            config = yaml.safe_load(archive.read("config.yaml"))
        assert {name for name in config if name != ORIGINAL} == {"responseTimeout", "mine"}
        context = SimpleNamespace(model_yaml_config=config)
        assert keeps_sequences(context)
        assert context.model_yaml_config == yaml.safe_load(said)
    assert (list(tmp_path.iterdir()), model.archive.read_bytes()) == ([model.archive], before)
    with without_sequences(replace(model, sequences=False)) as given:
        assert given.archive == model.archive
