import re
import tomllib
from pathlib import Path

import pytest

from marway.errors import InvalidSettings
from marway.resources import shipped
from marway.settings import load_settings
from marway_gateway.settings import GatewaySettings, PodAddress


def test_shipped_file_has_every_setting() -> None:
    """config/gateway.toml names every setting with its default, commented out where there is none."""
    path = shipped("config/gateway.toml")
    text = path.read_text()
    named = re.findall(r"^(# )?([a-z_]+) = ", text, re.MULTILINE)
    assert sorted(name for _, name in named) == sorted(GatewaySettings.model_fields)
    without_default = {name for name, field in GatewaySettings.model_fields.items() if field.default is None}
    assert {name for comment, name in named if comment} == without_default
    assert load_settings(GatewaySettings, config=path) == load_settings(GatewaySettings)
    assert set(tomllib.loads(text)) == set(GatewaySettings.model_fields) - without_default


def test_every_setting_is_described() -> None:
    """Each setting has a docstring, or shares that of the one before it."""
    assert [name for name, field in GatewaySettings.model_fields.items() if not field.description] == []


def test_pods_in_all_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pods are given as a list in a file, or with commas between them in a flag or variable, with names or without."""
    expected = (PodAddress("a", "http://10.0.0.7:9000"), PodAddress("10.0.0.8:9000", "http://10.0.0.8:9000"))
    assert load_settings(GatewaySettings, pods="a=http://10.0.0.7:9000/, http://10.0.0.8:9000,").pods == expected
    monkeypatch.setenv("MARWAY_GATEWAY_PODS", "a=http://10.0.0.7:9000,http://10.0.0.8:9000")
    assert load_settings(GatewaySettings).pods == expected
    monkeypatch.delenv("MARWAY_GATEWAY_PODS")
    file = tmp_path / "gateway.toml"
    file.write_text('pods = ["a=http://10.0.0.7:9000", "http://10.0.0.8:9000"]')
    assert load_settings(GatewaySettings, config=file).pods == expected


@pytest.mark.parametrize(
    ("pods", "says"),
    [
        ("localhost:9000", "no sidecar's URL"),
        ("ftp://a", "no sidecar's URL"),
        ("a b=http://a", "cannot be a pod's name"),
        ("a=http://a,a=http://b", "two pods are called 'a'"),
        (7, "pods are a list of URLs"),
    ],
)
def test_bad_pods(pods: object, says: str) -> None:
    """Pods that cannot be are refused with what is wrong."""
    with pytest.raises(InvalidSettings, match=says):
        load_settings(GatewaySettings, pods=pods)


@pytest.mark.parametrize("flag", [{"state_ttl_s": 3}, {"port": 70000}, {"max_body_bytes": 0}, {"nonsense": 1}])
def test_bad_values(flag: dict[str, object]) -> None:
    """Values out of bounds and unknown names are refused."""
    with pytest.raises(InvalidSettings, match=next(iter(flag))):
        load_settings(GatewaySettings, **flag)
