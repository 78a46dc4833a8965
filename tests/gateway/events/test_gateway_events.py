"""A gateway that is told of webhooks has its registry's events sent to them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.events.conftest import SECRET, Receiver
from marway.errors import InvalidSettings
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.settings import load_settings
from marway_gateway.gateway import open_gateway
from marway_gateway.settings import GatewaySettings
from support.registry import publisher


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(DirectoryStore(tmp_path / "registry"), must_exist=True)
    registry.create()
    publish = publisher(registry, tmp_path)
    for version in ("1.0", "2.0"):
        publish("intent", version)
    return registry


@pytest.fixture
def webhooks(tmp_path: Path, receiver: Receiver) -> Path:
    path = tmp_path / "webhooks.toml"
    path.write_text(f'[[webhook]]\nname = "hook"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n')
    path.chmod(0o600)
    return path


async def test_changes_reach_webhooks(
    registry: Registry, webhooks: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that nobody told the gateway of and one through the gateway are both sent, and told in its metrics."""
    for name in ("_FIRST_S", "_HISTORY_S", "_DELIVERY_S"):
        monkeypatch.setattr(f"marway_gateway.duties.opening.{name}", 0.01)
    settings = load_settings(GatewaySettings, access_log=False, webhooks_file=webhooks)
    async with open_gateway(settings, registry=registry) as gateway, asyncio.timeout(20):
        metrics = gateway.telemetry.metrics.registry
        while not registry.store.size("events/cursors-made.json"):
            await asyncio.sleep(0.01)
        registry.release("intent", "1.0", by="ann")
        await gateway.writer.change(registry.release, "intent", "2.0", by="ben")
        while len(receiver.got) < 2:
            await asyncio.sleep(0.01)
        labels = {"webhook": "hook", "outcome": "delivered"}
        while metrics.get_sample_value("marway_gateway_events_deliveries_total", labels) != 2:
            await asyncio.sleep(0.01)
        assert metrics.get_sample_value("marway_gateway_duties_held") == 1
    told = {document["id"]: document["data"] for document in receiver.got.values()}
    assert told["intent-1"]["by"] == "ann"  # type: ignore[index]
    assert told["intent-2"]["previous_version"] == "1.0"  # type: ignore[index]


async def test_gateway_does_not_start_with_a_file_that_cannot_be_used(registry: Registry, webhooks: Path) -> None:
    """A mistake in the webhooks file is told at once, and not when the first event is lost."""
    webhooks.write_text("[[webhook]]\n")
    settings = load_settings(GatewaySettings, webhooks_file=webhooks)
    with pytest.raises(InvalidSettings, match="webhook 1: name: Field required"):
        async with open_gateway(settings, registry=registry):
            pass


async def test_gateway_without_duties_says_that_it_sends_nothing(
    registry: Registry, webhooks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A webhooks file that has no effect is warned of."""
    settings = load_settings(GatewaySettings, access_log=False, duties=False, webhooks_file=webhooks)
    with caplog.at_level(logging.WARNING):
        async with open_gateway(settings, registry=registry):
            pass
    assert "sends no events to webhooks: its setting `duties` is off" in caplog.text
