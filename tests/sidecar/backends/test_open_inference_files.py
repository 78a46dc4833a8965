"""Names in the files of a version, as it has them in the server's repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.errors import LoadFailed
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.open_inference.files import Repository, renamed_config, renamed_settings
from support.bundles import write_bundle

CONFIG = 'backend: "python"\nmax_batch_size: 0\n'


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ('name: "a"\nbackend: "b"', 'name: "new"\nbackend: "b"'),
        ("name:'a' backend: 'b'", "name:\"new\" backend: 'b'"),
        ('name "a"', 'name "new"'),
        (CONFIG, CONFIG),
        ('input [{ name: "x" }] name: "a"', 'input [{ name: "x" }] name: "new"'),
        ('input { name: "x" }', 'input { name: "x" }'),
        ('# name: "c"\nname: "a" # name: "d"', '# name: "c"\nname: "new" # name: "d"'),
        (r'default_model_filename: "name: \"q\" {" name: "a"', r'default_model_filename: "name: \"q\" {" name: "new"'),
    ],
)
def test_only_the_models_own_name_is_another(text: str, renamed: str) -> None:
    """In Triton's configuration the outermost name is replaced, and nothing else that looks like one."""
    assert renamed_config(text, "new") == renamed


def test_an_ensemble_is_refused() -> None:
    """An ensemble names other models, which have other names here: it is refused with what to do instead."""
    with pytest.raises(LoadFailed, match=r"ensemble.*make it one model"):
        renamed_config('name: "e"\nensemble_scheduling { step [{ model_name: "x" }] }', "new")


def test_settings_of_mlserver_have_the_versions_names() -> None:
    """Name and version are the version's, and all else is kept; what is no JSON object is refused."""
    given = {"name": "a", "implementation": "m.M", "parameters": {"uri": "./w", "version": "v9"}}
    assert json.loads(renamed_settings(json.dumps(given), "new", "1.0")) == {
        "name": "new",
        "implementation": "m.M",
        "parameters": {"uri": "./w", "version": "1.0"},
    }
    for text in ("[]", "{", '{"parameters": 3}'):
        with pytest.raises(LoadFailed, match=r"model-settings\.json cannot be read"):
            renamed_settings(text, "new", "1.0")


def served(path: Path) -> ServedModel:
    return ServedModel("mv_1", "iris", "1.0", path, 1, 1.0, 1.0)


def test_a_bundle_is_placed_under_its_name_in_the_server(tmp_path: Path) -> None:
    """It is unpacked with its new name, once however often that is asked, and removed."""
    repository = Repository(tmp_path / "models", "open-inference")
    files = {"1/model.py": b"x", "config.pbtxt": f'name: "iris"\n{CONFIG}'.encode()}
    model = served(write_bundle(tmp_path / "a.bundle", "open-inference", files, name="iris"))
    for _ in range(2):
        repository.place(model)
        assert (tmp_path / "models/mv_1/config.pbtxt").read_text() == f'name: "mv_1"\n{CONFIG}'
    assert [placed.server_name for placed in repository.left()] == ["mv_1"]
    repository.remove("mv_1")
    assert not (tmp_path / "models/mv_1").exists()
    assert repository.left() == []


@pytest.mark.parametrize(
    ("backend", "files", "said"),
    [
        ("http", {"config.pbtxt": b""}, "for the backend http, not open-inference"),
        ("open-inference", {"config.pbtxt": CONFIG.encode()}, "no directory of a version, such as 1/"),
        ("open-inference", {"model.py": b""}, r"neither config\.pbtxt .* nor a directory 1/"),
        ("open-inference", {"1/x": b"", "config.pbtxt": b"ensemble_scheduling {}"}, "ensemble"),
    ],
)
def test_what_no_server_could_load_is_refused(tmp_path: Path, backend: str, files: dict[str, bytes], said: str) -> None:
    """A bundle for another backend, or of another layout, is refused in a sentence, and nothing of it stays."""
    repository = Repository(tmp_path / "models", "open-inference")
    with pytest.raises(LoadFailed, match=said) as raised:
        repository.place(served(write_bundle(tmp_path / "a.bundle", backend, files)))
    assert (raised.value.model, raised.value.version) == ("iris", "1.0")
    assert not (tmp_path / "models/mv_1").exists()
