"""The shipped configuration shows every setting as it is."""

from __future__ import annotations

import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidSettings
from marway.settings import ComponentSettings, load_settings, part_of
from marway_gateway.settings import GatewaySettings
from marway_ops.up.settings import UpSettings
from marway_runtime.settings import RuntimeSettings
from marway_sidecar.settings import SidecarSettings

CONFIG = Path(__file__).parents[1] / "config"
SHIPPED: list[tuple[str, type[ComponentSettings]]] = [
    ("gateway.toml", GatewaySettings),
    ("runtime.toml", RuntimeSettings),
    ("sidecar.toml", SidecarSettings),
    ("up.toml", UpSettings),
]


def test_every_file_is_parsed() -> None:
    """Every file in config/ is read by one of the tests here."""
    assert {path.name for path in CONFIG.iterdir()} == {name for name, _ in SHIPPED} | {"log4j2.xml"}
    ElementTree.parse(CONFIG / "log4j2.xml")


@pytest.mark.parametrize(("name", "kind"), SHIPPED)
def test_a_file_shows_every_setting_at_its_default(name: str, kind: type[ComponentSettings]) -> None:
    """Each setting stands in the file, live with its default or commented out where there is none."""
    text = (CONFIG / name).read_text()
    document: dict[str, Any] = tomllib.loads(text)
    shown: dict[str, Any] = document.get(part_of(kind), document)
    commented = {line[2:].partition(" =")[0] for line in text.splitlines() if line.startswith("# ") and " =" in line}
    assert set(kind.model_fields) == set(shown) | (commented & set(kind.model_fields))
    assert not set(shown) & commented
    for field, value in shown.items():
        default = kind.model_fields[field].get_default(call_default_factory=True)
        if isinstance(default, Path):
            default = str(default)
        assert value == (list(default) if isinstance(default, tuple) else default), field


@pytest.mark.parametrize(("name", "kind"), SHIPPED)
def test_every_setting_says_what_it_is(name: str, kind: type[ComponentSettings]) -> None:
    """Each setting's docstring is there: its unit, default and reason."""
    for field, info in kind.model_fields.items():
        assert info.description, f"{name}: {field}"


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is taken from the flag, else the environment, else the file, else the default."""
    file = tmp_path / "sidecar.toml"
    file.write_text('port = 1\nhost = "from-file"\nname = "from-file"\nregistry = "file:///from-file"\n')
    monkeypatch.setenv("MARWAY_SIDECAR_PORT", "2")
    monkeypatch.setenv("MARWAY_SIDECAR_HOST", "from-environment")
    monkeypatch.setenv("MARWAY_REGISTRY", "file:///shared")
    read = load_settings(SidecarSettings, config=file, port=3, host=None)
    assert (read.port, read.host, read.name, read.max_body_bytes) == (3, "from-environment", "from-file", 64 * 2**20)
    assert read.registry == "file:///shared"
    monkeypatch.setenv("MARWAY_SIDECAR_REGISTRY", "file:///own")
    assert load_settings(SidecarSettings, config=file).registry == "file:///own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", r"setting 'prot'.*known settings: .*port"),
        ("port = 'x'", "setting 'port'"),
        ("port = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_with_the_name_of_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt name, a bad value and broken TOML each give an error that names it and the file."""
    file = tmp_path / "sidecar.toml"
    file.write_text(text)
    with pytest.raises(InvalidSettings, match=said) as raised:
        load_settings(SidecarSettings, config=file)
    assert str(file) in raised.value.message
