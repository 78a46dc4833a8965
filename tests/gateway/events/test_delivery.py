"""Events reach their webhooks, whatever the receivers answer and whoever dies on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook as Verifier

from gateway.events.conftest import SECRET, Receiver
from marway.errors import RegistryUnavailable
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_gateway.events.delivery import Delivery
from marway_gateway.events.metrics import DeliveryMetrics
from marway_gateway.events.sending import Sender, message_id
from marway_gateway.events.webhooks import WebhooksFile
from marway_observations.events import Event, EventLog
from marway_observations.events.outbox import Outbox

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Sending:
    """A delivery under a clock that tests move."""

    def __init__(self, store: DirectoryStore, file: WebhooksFile) -> None:
        self.later = timedelta()
        self.metrics = CollectorRegistry()
        self.delivery = Delivery(
            store,
            file.current,
            sender=Sender(),
            metrics=DeliveryMetrics(self.metrics, now=self.now),
            now=self.now,
            clock=lambda: self.later.total_seconds(),
        )

    def now(self) -> datetime:
        return datetime.now(UTC) + self.later

    async def run(self, *, after: float = 0.0) -> None:
        self.later += timedelta(seconds=after)
        await self.delivery.run()

    def count(self, webhook: str, outcome: str) -> float | None:
        labels = {"webhook": webhook, "outcome": outcome}
        return self.metrics.get_sample_value("marway_gateway_events_deliveries_total", labels)

    def pending(self, webhook: str) -> float | None:
        return self.metrics.get_sample_value("marway_gateway_events_pending", {"webhook": webhook})


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "registry")
    Registry(store).create()
    return store


@pytest.fixture
def file(tmp_path: Path, receiver: Receiver) -> WebhooksFile:
    return webhooks(tmp_path, [("hook", receiver.url, "*")])


def webhooks(where: Path, each: Sequence[tuple[str, str, str]]) -> WebhooksFile:
    path = where / "webhooks.toml"
    sections = [
        f'[[webhook]]\nname = "{name}"\nurl = "{url}"\nsecret = "{SECRET}"\nmodels = ["{models}"]\n'
        for name, url, models in each
    ]
    path.write_text("\n".join(sections))
    path.chmod(0o600)
    return WebhooksFile(path)


@pytest.fixture
async def sending(store: DirectoryStore, file: WebhooksFile) -> AsyncIterator[Sending]:
    made = Sending(store, file)
    yield made
    await made.delivery.aclose()


def event(number: int = 1, model: str = "intent") -> Event:
    return Event(
        id=f"{model}-{number}",
        type="dev.marway.model.released",
        subject=model,
        time=AT + timedelta(minutes=number),
        data={"version": "2.0", "note": "für alle"},
    )


async def test_event_is_delivered_and_verified(store: DirectoryStore, sending: Sending, receiver: Receiver) -> None:
    """A receiver that verifies signatures as Standard Webhooks' own library does gets the CloudEvent, once."""
    EventLog(store).raise_(event())
    await sending.run()
    await sending.run(after=100)
    (document,) = receiver.got.values()
    assert document["id"] == "intent-1"
    assert document["specversion"] == "1.0"
    assert document["data"] == {"version": "2.0", "note": "für alle"}
    assert len(receiver.ids) == 1
    assert list(Outbox(store).pending()) == []
    assert sending.count("hook", "delivered") == 1
    assert sending.pending("hook") == 0
    sending.delivery.ended()
    assert sending.pending("hook") is None


async def test_event_is_sent_again_until_it_is_taken(
    store: DirectoryStore, sending: Sending, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt has the same id; pauses grow, and are at least as long as the receiver asks."""
    receiver.answers = [(500, {}), (301, {"location": "https://elsewhere/"}), (429, {"retry-after": "1000"})]
    EventLog(store).raise_(event())
    await sending.run()
    assert sending.pending("hook") == 1
    await sending.run(after=4)
    assert len(receiver.ids) == 1
    await sending.run(after=2)
    await sending.run(after=34)
    assert len(receiver.ids) == 3
    await sending.run(after=900)
    assert len(receiver.ids) == 3
    await sending.run(after=101)
    assert len(set(receiver.ids)) == 1
    assert len(receiver.ids) == 4
    assert len(receiver.got) == 1
    assert list(Outbox(store).pending()) == []
    assert sending.count("hook", "failed") == 3
    assert [each.levelname for each in caplog.records if "waits" in each.message] == ["WARNING"]


async def test_next_sender_goes_on_where_one_was_killed(
    store: DirectoryStore, file: WebhooksFile, receiver: Receiver
) -> None:
    """What came of attempts is kept beside the event: whoever sends next keeps to the pauses, and to the day."""
    receiver.answers = [(500, {})]
    EventLog(store).raise_(event())
    for after, sent in ((0.0, 1), (2.0, 1), (6.0, 2)):
        one = Sending(store, file)
        one.later = timedelta(seconds=after)
        await one.run()
        await one.delivery.aclose()
        assert len(receiver.ids) == sent
    assert len(receiver.got) == 1


async def test_sender_killed_before_it_could_say_so_sends_it_twice(
    store: DirectoryStore, file: WebhooksFile, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the copy has the id of the first, by which the receiver knows it."""
    EventLog(store).raise_(event())
    one = Sending(store, file)
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "attempted", _away)
        with pytest.raises(RegistryUnavailable):
            await one.run()
    await one.delivery.aclose()
    other = Sending(store, file)
    await other.run()
    await other.delivery.aclose()
    assert len(receiver.ids) == 2
    assert len(receiver.got) == 1


def _away(*args: object) -> None:
    raise RegistryUnavailable("the store is away")


async def test_event_that_nobody_takes_for_a_day_is_dead_until_it_is_sent_again(
    store: DirectoryStore, sending: Sending, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """After a day it is listed as dead with the last error, and the log says how to send it again, which works."""
    receiver.answers = [(503, {})] * 40
    EventLog(store).raise_(event())
    for _ in range(30):
        await sending.run(after=3600)
        if sending.count("hook", "dead"):
            break
    (dead,) = Outbox(store).dead()
    assert (dead.webhook, dead.event.id, dead.attempts.error) == ("hook", "intent-1", "answered 503: not now")
    assert dead.attempts.first_at is not None
    assert timedelta(hours=23.9) <= sending.now() - dead.attempts.first_at <= timedelta(hours=26)
    assert "marway events retry intent-1" in caplog.text
    assert list(Outbox(store).pending()) == []
    receiver.answers.clear()
    Outbox(store).retry(dead)
    await sending.run(after=1)
    assert len(receiver.got) == 1
    assert list(Outbox(store).dead()) == []
    assert list(Outbox(store).pending()) == []


async def test_receiver_that_is_gone_is_not_tried_for_a_day(
    store: DirectoryStore, sending: Sending, receiver: Receiver
) -> None:
    """410 ends it at once."""
    receiver.answers = [(410, {})]
    EventLog(store).raise_(event())
    await sending.run()
    assert [dead.webhook for dead in Outbox(store).dead()] == ["hook"]
    assert list(Outbox(store).pending()) == []


async def test_event_that_is_refused_holds_up_no_other(
    store: DirectoryStore, sending: Sending, receiver: Receiver
) -> None:
    """A receiver that refuses one event is sent the next; one that does not work is left alone for the round."""
    log = EventLog(store)
    for number in range(3):
        log.raise_(event(number))
    receiver.answers = [(400, {}), (204, {}), (204, {})]
    await sending.run()
    assert len(receiver.got) == 2
    for number in range(3, 6):
        log.raise_(event(number))
    receiver.answers = [(502, {})]
    await sending.run(after=1)
    assert len(receiver.ids) == 4
    await sending.run(after=1)
    assert len(receiver.got) == 4


async def test_receiver_that_hangs_is_left_in_time(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that takes a connection and says nothing, or says it for ever, costs one time-out a round."""
    monkeypatch.setattr("marway_gateway.events.sending._TIMEOUT_S", 0.2)
    began: list[asyncio.StreamWriter] = []
    left = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began.append(writer)
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not writer.is_closing():
                writer.write(b"x-more: and more\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        left.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sending = Sending(store, webhooks(tmp_path, [("slow", f"http://127.0.0.1:{port}/", "*")]))
        for number in range(3):
            EventLog(store).raise_(event(number))
        await sending.run()
        await sending.delivery.aclose()
        await left.wait()
    assert len(began) == 1
    assert sending.pending("slow") == 3
    waiting = [found[0] for each in range(3) if (found := Outbox(store).get(f"intent-{each}")) is not None]
    assert [each.webhooks["slow"].error for each in waiting if each.webhooks] == ["did not answer within 0.2 s"]


async def test_each_webhook_has_its_own(
    store: DirectoryStore, tmp_path: Path, receiver: Receiver, unused_tcp_port: int
) -> None:
    """One that cannot be reached keeps no other from its events, and each gets those of its models alone."""
    file = webhooks(
        tmp_path,
        [
            ("away", f"http://127.0.0.1:{unused_tcp_port}/", "*"),
            ("intent", receiver.url, "intent"),
            ("none", receiver.url, "x*"),
        ],
    )
    sending = Sending(store, file)
    log = EventLog(store)
    log.raise_(event())
    log.raise_(event(2, model="digits"))
    await sending.run()
    assert [document["id"] for document in receiver.got.values()] == ["intent-1"]
    assert [sending.pending(name) for name in ("away", "intent", "none")] == [2, 0, 0]
    # Who leaves the file is waited for no longer.
    file.path.write_text("")
    file.look()
    await sending.run(after=1)
    assert list(Outbox(store).pending()) == []
    await sending.delivery.aclose()


async def test_raising_that_was_interrupted_is_finished(
    store: DirectoryStore, sending: Sending, receiver: Receiver
) -> None:
    """An event of which only is known that it is to be sent is kept as well."""
    log = EventLog(store)
    Outbox(store).put(event().model_copy(update={"source": log.source()}))
    await sending.run()
    assert len(list(log.keys())) == 1
    assert len(receiver.got) == 1


async def test_damaged_event_is_told_once(
    store: DirectoryStore, sending: Sending, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot be read keeps no other from being sent."""
    store.create("events/pending/broken.json", b"{}")
    EventLog(store).raise_(event())
    await sending.run()
    await sending.run(after=1)
    assert len(receiver.got) == 1
    assert len([each for each in caplog.records if "broken is not sent" in each.message]) == 1


async def test_every_secret_signs(store: DirectoryStore, tmp_path: Path, receiver: Receiver) -> None:
    """While a secret is replaced, receivers with the old and with the new one take the same event."""
    (tmp_path / "secrets").write_text("whsec_" + "A" * 43 + "=\n" + SECRET + "\n")
    path = tmp_path / "webhooks.toml"
    path.write_text(f'[[webhook]]\nname = "hook"\nurl = "{receiver.url}"\nsecret_file = "secrets"\n')
    sending = Sending(store, WebhooksFile(path))
    EventLog(store).raise_(event())
    await sending.run()
    await sending.delivery.aclose()
    assert len(receiver.got) == 1


async def test_proxy_of_the_environment_is_used(
    store: DirectoryStore, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver outside is asked through the proxy that the environment names, unless it says that it needs none."""
    file = webhooks(tmp_path, [("outside", "http://receiver.test/hook", "*"), ("inside", receiver.url, "*")])
    monkeypatch.setenv("http_proxy", receiver.url.removesuffix("/hook"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sending = Sending(store, file)
    EventLog(store).raise_(event())
    await sending.run()
    await sending.delivery.aclose()
    assert sorted(receiver.targets) == sorted(["http://receiver.test/hook", receiver.url])


def test_message_ids_differ_between_registries() -> None:
    """A receiver of two registries takes no event of one for that of the other."""
    one, other = (event().model_copy(update={"source": f"/marway/registries/{each}"}) for each in "ab")
    assert message_id(one) == message_id(one)
    assert message_id(one) != message_id(other)
    assert "." not in message_id(one)  # which parts what is signed
    assert Verifier(SECRET)
