import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from marway.errors import (
    InvalidReference,
    LabelNotFound,
    ModelNotFound,
    RegistryUnavailable,
    VersionNotFound,
)
from marway.objects import DirectoryStore
from marway.records import ModelState, Tombstone, VersionRecord, utc_now
from marway.refs import Reference
from marway.registry import Registry
from marway.registry.encoding import encode
from marway.resolve.reader import RegistryReader
from marway.resolve.resolver import Resolver
from marway.serving import ServingSettings
from support.registry import publish, until


class Clock:
    """Monotonic seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class WatchedRegistry(Registry):
    """A real registry that counts its look-ups, can be away, and can take its time."""

    def __init__(self, store: DirectoryStore) -> None:
        super().__init__(store)
        self.away = False
        self.hold = threading.Event()
        self.hold.set()
        self.after_state: Callable[[], None] = lambda: None
        self.resolves = 0
        self.states = 0
        self.records = 0

    def _check(self) -> None:
        self.hold.wait()
        if self.away:
            raise RegistryUnavailable("the store is away")

    def pointer(self, id_or_name: str):
        self._check()
        return super().pointer(id_or_name)

    def record(self, name: str, version: str) -> VersionRecord:
        self.records += 1
        self._check()
        return super().record(name, version)

    def state(self, name: str) -> ModelState:
        self.states += 1
        self._check()
        state = super().state(name)
        self.after_state()
        return state

    def resolve(self, reference: Reference) -> VersionRecord:
        self.resolves += 1
        return super().resolve(reference)

    def write_state(self, name: str, **changes: object) -> None:
        """Change a model's state in ways that have no verb yet."""
        key = f"models/{name}/state.json"
        old = self.store.get(key)
        state = Registry.state(self, name)
        changed = state.model_copy(update={"generation": state.generation + 1, **changes})
        self.store.replace(key, encode(changed), etag=old.etag)


MakeResolver = Callable[..., AbstractAsyncContextManager[Resolver]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path) -> WatchedRegistry:
    return WatchedRegistry(DirectoryStore(tmp_path / "registry"))


@pytest.fixture
def make_resolver(registry: WatchedRegistry, clock: Clock) -> MakeResolver:
    @asynccontextmanager
    async def make(**changes: object) -> AsyncIterator[Resolver]:
        reader = RegistryReader(registry, threads=4, clock=clock)
        known = {"state_ttl_s": 2.0, "state_max_stale_s": None, "negative_ttl_s": 1.0, "wait_s": 5.0, **changes}
        resolver = Resolver(reader, clock=clock, **known)  # type: ignore[arg-type]
        try:
            yield resolver
        finally:
            registry.hold.set()
            await resolver.aclose()
            await reader.aclose()

    return make


async def test_hit_makes_no_look_up(registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver) -> None:
    """A reference that was resolved is answered from memory, without waiting."""
    publish(registry, tmp_path)
    async with make_resolver() as resolver:
        first = await resolver.resolve("intent", "PROD")
        registry.away = True
        assert resolver.lookup("intent", "PROD") is first
        assert first.record.version == "1.0"
        assert first.label == "PROD"


async def test_reference_forms(registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver) -> None:
    """A name means PROD, a version itself, an id its own version wherever labels point, and case does not count."""
    publish(registry, tmp_path, version="1.0", model_id="run-7")
    publish(registry, tmp_path, version="1.1")
    async with make_resolver() as resolver:
        assert (await resolver.resolve("intent")).record.version == "1.1"
        assert (await resolver.resolve("INTENT", "PROD")).record.version == "1.1"
        assert (await resolver.resolve("intent", "1.0")).label is None
        assert (await resolver.resolve("run-7")).record.version == "1.0"


async def test_effective_serving_settings(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver
) -> None:
    """The state's overrides lie over the record's settings, field by field."""
    publish(registry, tmp_path, serving=ServingSettings(pods=2, max_batch_rows=8))
    registry.write_state("intent", serving={"*": ServingSettings(pods=3)})
    async with make_resolver() as resolver:
        serving = (await resolver.resolve("intent")).serving
        assert (serving.pods, serving.max_batch_rows) == (3, 8)


async def test_what_is_known_of_training_data_is_not_kept(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver
) -> None:
    """A process that serves many versions does not hold the summaries of their training data in memory."""
    training = {"run_id": "run-7", "features": {"input.age": {"kind": "number", "rows": 1}}}
    publish(registry, tmp_path, training=training)
    assert registry.record("intent", "1.0").training.features
    async with make_resolver() as resolver:
        record = (await resolver.resolve("intent", "PROD")).record
    assert (record.training.run_id, record.training.features) == ("run-7", {})


async def test_label_move_is_seen_within_the_bound(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """A moved label is honoured once the state is two seconds old, with nobody asking in between."""
    publish(registry, tmp_path, version="1.0")
    async with make_resolver() as resolver:
        assert (await resolver.resolve("intent")).record.version == "1.0"
        publish(registry, tmp_path, version="1.1")
        clock.now += 1.99
        clock.now += 0.01
        assert resolver.lookup("intent", None) is None
        assert (await resolver.resolve("intent")).record.version == "1.1"


async def test_age_counts_from_before_the_read(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """A label that moved while the state was being read is honoured two seconds after the move, not after the read."""
    publish(registry, tmp_path, version="1.0")

    def slow() -> None:
        clock.now += 1.5

    async with make_resolver() as resolver:
        registry.after_state = slow
        assert (await resolver.resolve("intent")).record.version == "1.0"
        registry.after_state = lambda: None
        publish(registry, tmp_path, version="1.1")
        clock.now += 0.5
        assert (await resolver.resolve("intent")).record.version == "1.1"


async def test_state_in_use_is_read_ahead(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """From half its time on, a state is read again in the background while it still serves."""
    publish(registry, tmp_path, version="1.0")
    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        publish(registry, tmp_path, version="1.1")
        clock.now += 1.0
        old = resolver.lookup("intent", None)
        assert old is not None
        assert old.record.version == "1.0"
        await until(lambda: (found := resolver.lookup("intent", None)) is None or found.record.version != "1.0")
        assert (await resolver.resolve("intent")).record.version == "1.1"


async def test_one_look_up_for_a_thousand_requests(registry: WatchedRegistry, make_resolver: MakeResolver) -> None:
    """A thousand requests at once for one unknown model, whatever their labels, make one look-up."""
    registry.hold.clear()
    async with make_resolver() as resolver:
        asked = [asyncio.create_task(resolver.resolve("nix", f"L{number}")) for number in range(1000)]
        await asyncio.sleep(0)
        registry.hold.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ModelNotFound}
        assert registry.resolves == 1


async def test_one_read_for_a_thousand_requests(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver
) -> None:
    """A thousand requests at once for one known model make one read of its state and one of its record."""
    publish(registry, tmp_path)
    registry.states = registry.records = 0
    async with make_resolver() as resolver:
        await asyncio.gather(*(resolver.resolve("intent") for _ in range(1000)))
        assert (registry.states, registry.records) == (1, 1)


async def test_not_found_is_remembered_briefly(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """A model that was not there is looked up again only after a second."""
    async with make_resolver() as resolver:
        with pytest.raises(ModelNotFound):
            await resolver.resolve("intent")
        publish(registry, tmp_path)
        clock.now += 0.9
        with pytest.raises(ModelNotFound):
            await resolver.resolve("intent", "1.0")
        assert registry.resolves == 1
        clock.now += 0.1
        assert (await resolver.resolve("intent")).record.version == "1.0"


async def test_not_found_names_what_exists(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver
) -> None:
    """What is not found is answered with the names of what there is."""
    publish(registry, tmp_path, version="1.0", model_id="run-7")
    async with make_resolver() as resolver:
        with pytest.raises(ModelNotFound, match=r"there is no model 'itent': the registry has intent"):
            await resolver.resolve("itent")
        with pytest.raises(VersionNotFound, match=r"model 'intent' has no version '9': it has 1\.0"):
            await resolver.resolve("intent", "9")
        with pytest.raises(LabelNotFound, match=r"no label STG: its labels are PROD → 1\.0; its versions are 1\.0"):
            await resolver.resolve("intent", "STG")
        with pytest.raises(VersionNotFound, match=r"'run-7' is a model id .* leave 'PROD' away"):
            await resolver.resolve("run-7", "PROD")


@pytest.mark.parametrize(("name", "selector"), [("in tent", None), ("intent", "a b"), ("-x", None), ("x" * 70, "PROD")])
async def test_impossible_references(make_resolver: MakeResolver, name: str, selector: str | None) -> None:
    """What cannot be a reference is refused without a look-up."""
    async with make_resolver() as resolver:
        with pytest.raises(InvalidReference):
            await resolver.resolve(name, selector)


async def test_label_made_after_the_state_was_read(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver
) -> None:
    """A label made a moment ago is found at once, although the state in memory does not have it."""
    publish(registry, tmp_path)
    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        registry.release("intent", "1.0", label="STG", by="test")
        assert (await resolver.resolve("intent", "STG")).label == "STG"


async def test_refresh_after_a_change(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """After a refresh requests see the change, also where a read that began before it ends after it."""
    publish(registry, tmp_path, version="1.0")
    publish(registry, tmp_path, version="1.1", label=None)
    reading, go_on = threading.Event(), threading.Event()

    def held() -> None:
        registry.after_state = lambda: None
        reading.set()
        go_on.wait(10)

    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        registry.after_state = held
        clock.now += 1.5
        resolver.lookup("intent", None)  # reads again in the background
        await until(reading.is_set)
        registry.release("intent", "1.1", by="test")
        refreshed = asyncio.create_task(resolver.refresh("intent"))
        await asyncio.sleep(0)
        assert not refreshed.done()
        go_on.set()
        await refreshed
        known = resolver.lookup("intent", None) or await resolver.resolve("intent")
        assert known.record.version == "1.1"
        with pytest.raises(VersionNotFound):
            await resolver.resolve("intent", "2.0")
        publish(registry, tmp_path, version="2.0")
        await resolver.refresh("intent")  # forgets what was not there as well
        assert (await resolver.resolve("intent", "2.0")).record.version == "2.0"


async def test_refresh_with_the_store_away(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver
) -> None:
    """A refresh that cannot read takes nothing away: the last known state serves on."""
    publish(registry, tmp_path)
    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        registry.away = True
        await resolver.refresh("intent")
        assert (await resolver.resolve("intent")).record.version == "1.0"


async def test_deleted_version(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """A deleted version is refused once the state is read again, by label, by version and by id."""
    record = publish(registry, tmp_path)
    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        registry.write_state("intent", tombstones={"1.0": Tombstone(at=utc_now(), by="test")})
        clock.now += 2
        for name, selector in (("intent", None), ("intent", "1.0"), (record.id, None)):
            with pytest.raises(VersionNotFound, match="was deleted"):
                await resolver.resolve(name, selector)


async def test_store_away(registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock) -> None:
    """While the store is away the last known state serves without a bound, and is read again once it is back."""
    publish(registry, tmp_path, version="1.0")
    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        registry.away = True
        for _ in range(3):
            clock.now += 1000
            assert (await resolver.resolve("intent")).record.version == "1.0"
        reads = registry.states
        assert (await resolver.resolve("intent")).record.version == "1.0"
        assert registry.states == reads, "a store that is away is not asked by every request"
        registry.away = False
        publish(registry, tmp_path, version="1.1")
        clock.now += 2
        assert (await resolver.resolve("intent")).record.version == "1.1"


async def test_staleness_bound(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """With a bound, a state older than it serves no more while the store is away."""
    publish(registry, tmp_path)
    async with make_resolver(state_max_stale_s=10.0) as resolver:
        await resolver.resolve("intent")
        registry.away = True
        clock.now += 9.5
        await resolver.resolve("intent")
        clock.now += 0.5
        with pytest.raises(RegistryUnavailable):
            await resolver.resolve("intent")


async def test_nothing_known_and_store_away(registry: WatchedRegistry, make_resolver: MakeResolver) -> None:
    """A model that was never read cannot be served while the store is away, and that is not remembered."""
    registry.away = True
    async with make_resolver() as resolver:
        with pytest.raises(RegistryUnavailable):
            await resolver.resolve("intent")
        registry.away = False
        with pytest.raises(ModelNotFound):
            await resolver.resolve("intent")


async def test_store_that_hangs(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """A store that does not answer at all is waited for once, a bounded time; then the last known state serves."""
    publish(registry, tmp_path)
    async with make_resolver(wait_s=0.5) as resolver:
        await resolver.resolve("intent")
        registry.hold.clear()
        clock.now += 5
        assert (await resolver.resolve("intent")).record.version == "1.0"
        assert resolver.lookup("intent", None) is not None
        with pytest.raises(RegistryUnavailable, match=r"has not answered within 0\.5 s"):
            await resolver.resolve("digits")


async def test_state_that_vanishes(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """A state that is gone from the store, which never happens on purpose, counts as a store that is away."""
    publish(registry, tmp_path)
    async with make_resolver() as resolver:
        await resolver.resolve("intent")
        registry.store.delete("models/intent/state.json")
        clock.now += 2
        assert (await resolver.resolve("intent")).record.version == "1.0"


@pytest.mark.parametrize("damage", ["old", "changed", "torn"])
async def test_fault_state_put_back_or_damaged(
    registry: WatchedRegistry,
    tmp_path: Path,
    make_resolver: MakeResolver,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    """An old state that is put back, and a damaged one, are refused: the last good one serves, and the log says why."""
    path = tmp_path / "registry" / "models" / "intent" / "state.json"
    publish(registry, tmp_path)
    old = path.read_bytes()
    publish(registry, tmp_path, version="2.0")
    good = path.read_bytes()
    async with make_resolver() as resolver:
        assert (await resolver.resolve("intent")).record.version == "2.0"
        path.write_bytes({"old": old, "changed": good.replace(b'"2.0"', b'"1.0"'), "torn": good[:-9]}[damage])
        for _ in range(3):
            clock.now += 2
            assert (await resolver.resolve("intent")).record.version == "2.0"
        assert [each.levelname for each in caplog.records if "last good state" in each.message] == ["ERROR"]
        path.write_bytes(good)
        registry.release("intent", "1.0", by="test")
        clock.now += 2
        assert (await resolver.resolve("intent")).record.version == "1.0"


async def test_labels_of_models_in_use(
    registry: WatchedRegistry, tmp_path: Path, make_resolver: MakeResolver, clock: Clock
) -> None:
    """The labels of models whose state was read lately are known, those used last first, and no more than asked for."""
    for name in ("first", "second", "third"):
        publish(registry, tmp_path, name)
    publish(registry, tmp_path, "second", "2.0", label="STG")
    async with make_resolver() as resolver:
        for name in ("first", "second"):
            await resolver.resolve(name)
        known = [("second", "PROD", "1.0"), ("second", "STG", "2.0"), ("first", "PROD", "1.0")]
        assert resolver.labels(within_s=60, limit=10) == known
        assert resolver.labels(within_s=60, limit=2) == known[:2]
        clock.now += 61
        assert resolver.labels(within_s=60, limit=10) == []
        await resolver.resolve("third")
        assert resolver.labels(within_s=60, limit=10) == [("third", "PROD", "1.0")]


async def test_time_since_the_registry_answered(registry: WatchedRegistry, clock: Clock) -> None:
    """It is 0 while the registry answers, also that there is no such thing, and else grows from its last answer on."""
    reader = RegistryReader(registry, threads=1, clock=clock)
    try:
        clock.now += 5
        assert reader.stale_s() == 0
        registry.away = True
        with pytest.raises(RegistryUnavailable):
            await reader.call(registry.pointer, "nix")
        assert reader.stale_s() == 5, "it never answered: since it was opened"
        registry.away = False
        assert await reader.call(registry.pointer, "nix") is None
        assert reader.stale_s() == 0
        clock.now += 3
        registry.away = True
        with pytest.raises(RegistryUnavailable):
            await reader.call(registry.pointer, "nix")
        clock.now += 4
        assert reader.stale_s() == 7
    finally:
        await reader.aclose()
