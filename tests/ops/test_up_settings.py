"""`marway up --config FILE`: one file with the settings of `marway up` and of the parts that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway.errors import InvalidSettings
from marway.settings import load_settings
from marway_gateway.settings import GatewaySettings
from marway_ops.up.settings import UpSettings, check_parts
from marway_sidecar.settings import SidecarSettings
from support.cli import marway, refused


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "marway.toml"


def test_each_part_takes_its_own_table(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file has tables for all; flags win over the environment, and that over the file."""
    file.write_text(
        'up = {port = 9000, pods = 3, home = "models"}\n[gateway]\nqueue_limit = 7\n'
        '[gateway.algorithm_pools]\ntransformer = "gpu"\n[sidecar]\nqueue_limit = 8\n'
    )
    monkeypatch.setenv("MARWAY_UP_PODS", "2")
    monkeypatch.setenv("MARWAY_REGISTRY", "file:///shared")
    read = load_settings(UpSettings, config=file, port=0, home=None)
    assert (read.port, read.pods, read.home, read.demo) == (0, 2, Path("models"), False)
    assert read.registry == "file:///shared"
    gateway = load_settings(GatewaySettings, config=file)
    assert (gateway.queue_limit, gateway.algorithm_pools, gateway.port) == (7, {"transformer": "gpu"}, 8000)
    assert load_settings(SidecarSettings, config=file).queue_limit == 8
    assert list(check_parts(file, {"MARWAY_REGISTRY": "file:///shared"})) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[up]\nprot = 1",
            "setting 'prot' (MARWAY_UP_PROT): Extra inputs are not permitted; known settings: home, port,",
        ),
        ("[up]\nprot = 1", "; did you mean 'port'?"),
        ("[up]\nport = 70000", "setting 'port' (MARWAY_UP_PORT): Input should be less than or equal to 65533"),
        ("[gateway]\nqueue_limits = 7", "setting 'queue_limits' (MARWAY_GATEWAY_QUEUE_LIMITS)"),
        ("[runtime]\nshare_classes = 7", "setting 'share_classes'"),
        ("[gateway]\nport = 9000", "[gateway] sets port, which `marway up` decides: say port for `marway up` itself"),
        ("[sidecar]\nname = 'x'", "[sidecar] sets name, which `marway up` decides: each pod has its own"),
        ("[runtime]\nclass_archives = '/x'", "MARWAY_RUNTIME_CLASS_ARCHIVES says another place"),
        ("[up]\n[gatway]\nport = 9000", "; did you mean 'gateway'?"),
        ("pods = 2\n[gateway]\n", "'pods' is in no part's table"),
        ("gateway = 3", "gateway is not a table: write [gateway] above its settings"),
        ("port = 9000", "has no tables: for `marway up` write its own settings under [up]"),
        ("[up", "is not valid TOML"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path: Path, file: Path, text: str, says: str) -> None:
    """An unknown key, table or value, and what `marway up` decides, are refused by name before anything starts."""
    file.write_text(text)
    said = refused(marway("up", *(() if "70000" in text else ("--port", "0")), "--config", str(file), cwd=tmp_path))
    assert says in said
    assert str(file) in said
    assert not (tmp_path / ".marway").exists()


def test_a_variable_without_effect_on_up_is_warned_of() -> None:
    """A part's variable that `marway up` overrules is named, with the setting that does it."""
    said = list(check_parts(None, {"MARWAY_GATEWAY_PORT": "9000", "MARWAY_SIDECAR_PORT": "", "MARWAY_UP_PORT": "1"}))
    assert said == [
        "the variable MARWAY_GATEWAY_PORT has no effect on `marway up`: say port for `marway up` itself",
    ]


def test_a_file_of_one_part_is_as_it_was(file: Path) -> None:
    """Without tables of parts a file has the settings of the one that reads it."""
    file.write_text('queue_limit = 9\n[algorithm_pools]\ntransformer = "gpu"\n')
    assert load_settings(GatewaySettings, config=file).queue_limit == 9
    file.write_text("queue_limt = 9")
    with pytest.raises(InvalidSettings, match="did you mean 'queue_limit'"):
        load_settings(GatewaySettings, config=file)
