"""The file of webhooks: who is sent events, and what is refused of it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marway.errors import InvalidSettings
from marway_gateway.events.webhooks import WebhooksFile
from marway_observations.events import Event

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
GOOD = f"""
[[webhook]]
name = "retrain"
url = "https://ci.example.com/hooks"
secret = "{SECRET}"
types = ["dev.marway.model.quality_*", "dev.marway.model.drifted"]
models = ["intent", "fraud-*"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "webhooks.toml"
    file.write_text(GOOD)
    file.chmod(0o600)
    return file


def event(kind: str, model: str) -> Event:
    return Event(id="x", type=f"dev.marway.model.{kind}", subject=model, time=datetime(2026, 11, 30, tzinfo=UTC))


def test_webhook_wants_types_and_models(file: Path) -> None:
    """A webhook is sent events of its types about its models; '*' at the end of a type stands for all that begin so."""
    (webhook,) = WebhooksFile(file).current()
    assert webhook.keys == (KEY,)
    assert webhook.wants(event("quality_recovered", "fraud-eu"))
    assert webhook.wants(event("drifted", "intent"))
    assert not webhook.wants(event("drift_ended", "intent"))
    assert not webhook.wants(event("drifted", "intent2"))
    assert "whsec" not in repr(webhook)
    assert str(KEY) not in repr(webhook)


def test_webhook_wants_all_by_default(file: Path) -> None:
    """One that names neither types nor models is sent everything."""
    file.write_text(f'[[webhook]]\nname = "all"\nurl = "http://127.0.0.1:9/x"\nsecret = "{SECRET}"\n')
    (webhook,) = WebhooksFile(file).current()
    assert webhook.wants(event("released", "any"))


def test_secrets_may_be_in_a_file_of_their_own(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of secrets is beside the webhooks file, holds one or more, and is followed as well."""
    secrets = file.with_name("retrain.secret")
    file.write_text(GOOD.replace(f'secret = "{SECRET}"', 'secret_file = "retrain.secret"'))
    secrets.write_text(SECRET + "\n")
    secrets.chmod(0o600)
    webhooks = WebhooksFile(file)
    assert webhooks.current()[0].keys == (KEY,)
    other = bytes(range(1, 33))
    secrets.write_text(f"whsec_{base64.b64encode(other).decode()}\n{SECRET}\n")
    webhooks.look()
    assert webhooks.current()[0].keys == (other, KEY)
    file.chmod(0o644)  # it holds no secret: anybody may read it
    WebhooksFile(file)
    assert [each for each in caplog.records if each.levelname == "WARNING"] == []
    secrets.chmod(0o644)
    WebhooksFile(file)
    assert "chmod 600" in caplog.text


def test_changed_file_is_refused_whole(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a file with a mistake nothing counts: the webhooks stay as they were, which is said once, without secrets."""
    webhooks = WebhooksFile(file)
    before = webhooks.current()
    file.write_text(GOOD.replace("retrain", "again") + GOOD.replace("whsec_", "whsec-"))
    for _ in range(3):
        webhooks.look()
    assert webhooks.current() is before
    assert len(caplog.records) == 1
    assert "the webhooks stay as they were" in caplog.text
    assert base64.b64encode(KEY).decode() not in caplog.text
    file.write_text(GOOD.replace("retrain", "again"))
    webhooks.look()
    assert [each.name for each in webhooks.current()] == ["again"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[[webhook]]", "[webhook", "not valid TOML"),
        ("[[webhook]]", "[webhook]", r"write \[\[webhook\]\] above each"),
        ("[[webhook]]", "interval = 3\n[[webhook]]", "'interval' is out of place"),
        ("retrain", "re train", "cannot be a name"),
        ("https://ci.example.com/hooks", "ci.example.com", "is no URL"),
        ("https://ci.example.com/hooks", "https://me:secret@ci.example.com/", "a password in it"),
        ("quality_*", "qualty_*", "is the type of no event.*did you mean 'dev.marway.model.quality_"),
        ("models = ", "model = ", "webhook retrain: model: .*did you mean 'models'"),
        ('"intent", ', '"in/tent", ', "is no model"),
        (f'secret = "{SECRET}"', "", "a secret or a secret_file"),
        (f'secret = "{SECRET}"', f'secret = "{SECRET}"\nsecret_file = "x"', "a secret or a secret_file"),
        (f'secret = "{SECRET}"', 'secret_file = "absent"', "cannot read the file of secrets"),
        (SECRET, "whsec_c2hvcnQ=", "head -c 32 /dev/urandom"),
        (SECRET, "hello", "head -c 32 /dev/urandom"),
        (GOOD, GOOD + GOOD, "two webhooks are called 'retrain'"),
    ],
)
def test_mistake_is_named(file: Path, old: str, new: str, says: str) -> None:
    """Each mistake is refused with the file, the webhook and what is right."""
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InvalidSettings, match=says) as refused:
        WebhooksFile(file)
    assert str(file) in refused.value.message
    assert base64.b64encode(KEY).decode() not in refused.value.message
