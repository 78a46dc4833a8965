"""`marway compare` and `marway verify --engine`: what they ask of pods, print and end with; the pods are not real.

tests/e2e/test_compare.py has the same with real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from marway.answers.golden import GoldenDocument
from marway.environments.lock import EnvironmentLock, WheelRef
from marway.records import VersionRecord
from marway.refs import new_model_id
from marway.registry import Registry, open_registry
from marway.serving import ServingSettings
from marway_archiver import PackedArchive, pack, verify_archive
from marway_archiver.publishing.facts import RecordFacts
from marway_archiver.publishing.locking.lock import LockOptions
from marway_archiver.publishing.register import store
from marway_archiver.verify import Verification
from marway_ops.cli import main as shell
from marway_ops.engines.load import Figures
from marway_ops.engines.proof import EngineAnswer, EngineProof
from marway_ops.engines.trial import Memory, Trial

ANSWER = EngineAnswer(200, "application/json", b"{}", 0.002)


def proof(engine: str, **changes: Any) -> EngineProof:
    versions = {engine: "1.2", "torch": "2"}
    return replace(EngineProof(engine, None, {}, (ANSWER, ANSWER), versions, 0.5, True), **changes)


def trial_of(*proofs: EngineProof, **more: Any) -> Trial:
    return Trial({each.engine: each for each in proofs}, **{"differences": {}, **more})


def figures(engine: str, clients: int, rate: float, **more: Any) -> Figures:
    return Figures(engine, clients, [rate, rate * 1.1], [0.001, 0.002, 0.004], **more)


BOTH = trial_of(proof("torchserve"), proof("native"))
LOADED = replace(
    BOTH,
    figures=[figures("torchserve", 1, 100.0), figures("native", 1, 300.0)],
    memory={"torchserve": Memory(500 * 2**20, "pss", 2), "native": Memory(250 * 2**20, "pss", 1)},
)


@dataclass
class Asked:
    """What the verb asked for, once, and what it is told."""

    answer: Trial
    record: VersionRecord | None = None
    found: dict[str, Any] = field(default_factory=dict)
    examine: Callable[[Registry], None] = lambda _: None
    """Told of the registry of the pods."""

    def __call__(self, record: VersionRecord, examples: Any, plan: Any, **more: Any) -> Trial:
        engines = tuple(pod.engine for pod in plan)
        self.record, self.found = record, {"examples": examples, "engines": engines, **more}
        registry = open_registry(more["registry"])
        stored = registry.record(record.name, record.version)
        self.examine(registry)
        assert stored == record
        assert stored.golden_sha256 is not None
        return self.answer


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked(LOADED)
    for verb in ("compare", "verify"):
        monkeypatch.setattr(import_module(f"marway_archiver.cli.{verb}"), "try_engines", found)
    return found


@pytest.fixture(scope="session")
def verified(_echo: PackedArchive) -> Verification:
    """What running the archive's handler gives: once, for it takes seconds."""
    return verify_archive(_echo.path, golden=_echo.golden)


@pytest.fixture
def known(verified: Verification, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `marway verify` find that, with the golden document that it is given."""

    def verify(path: Path, *, golden: GoldenDocument | None, **_: object) -> Verification:
        return replace(verified, archive=replace(verified.archive, path=Path(path)), golden=golden)

    monkeypatch.setattr(import_module("marway_archiver.cli.verify"), "verify_archive", verify)


@pytest.fixture
def models(_echo: PackedArchive, tmp_path: Path) -> Registry:
    """A registry with the archive, which asks for an engine."""
    registry = open_registry((tmp_path / "models").as_uri(), create=True)
    facts = RecordFacts(serving=ServingSettings(engine="native", max_batch_rows=4, predict_timeout_s=7))
    wish = LockOptions(lock=False)
    record = store(_echo, facts, registry, create_registry=False, lock=wish, release=None, progress=None)
    registry.release("m", record.version, label="PROD", note=None, by="test", forced=True)
    return registry


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MARWAY_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)

    def once(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["marway", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            shell.main()
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return once


def test_compare_reports_an_archive(echo: PackedArchive, run: Run, asked: Asked) -> None:
    """Answers, rates, percentiles, memory and the ratio are in the report, and nothing is left of the registry."""
    code, out, err = run("compare", "--engine", "torchserve", "native", echo.path)
    assert (code, err) == (0, "")
    assert asked.found["engines"] == ("torchserve", "native")
    assert [each.data for each in asked.found["examples"]] == [b"one", b"two"]
    assert asked.found["load"].clients == (1, 8)
    assert out.count("as golden") == 4
    assert out.count("equal") == 3
    words = " ".join(out.split())
    assert "torchserve 1.2: loaded and proved in 0.50 s" in words
    assert "1 torchserve 105.0 2.00 4.00 0 1 native 315.0 2.00 4.00 0 3.00x (3.00–3.00)" in words
    assert "torchserve: 500 MiB (PSS) in all of the pod's processes, 2 workers" in words
    assert "native: 250 MiB (PSS) in all of the pod's processes, 1 worker" in words
    assert words.endswith("equal: 2 golden examples, and 6 answers under load")
    assert not asked.found["directory"].exists()


def test_compare_as_json(models: Registry, run: Run, asked: Asked) -> None:
    """One document says the same to a program; the order of the engines is the one that was given."""
    asked.answer = replace(LOADED, proofs=dict(reversed(LOADED.proofs.items())))
    words = ("m", "--registry", models.url, "--seconds", "1", "--clients", "2, 4,2", "--json")
    code, out, _ = run("compare", "--engine", "native", "torchserve", *words)
    assert code == 0
    assert asked.found["load"].clients == (2, 4)
    document = json.loads(out)
    assert (document["model"], document["version"], document["equal"], document["examples"]) == ("m", "1", True, 2)
    assert document["golden_sha256"] == models.record("m", "1").golden_sha256
    assert [*document["engines"]] == ["native", "torchserve"]
    assert document["engines"]["native"]["examples"][0] == {
        "number": 1, "ok": True, "problem": None, "single_ms": 2.0, "status": 200, "content_type": "application/json",
    }  # fmt: skip
    assert document["load"][0] == {
        "clients": 1, "engine": "torchserve", "requests": 3, "wrong": 0, "problems": [], "requests_per_s": 105.0,
        "p50_ms": 2.0, "p99_ms": 4.0,
    }  # fmt: skip
    assert document["ratios"] == [
        {"clients": 1, "of": "torchserve", "to": "native", "requests_per_s": 0.333, "least": 0.333, "most": 0.333}
    ]
    assert document["memory"]["native"] == {"mib": 250.0, "kind": "pss", "workers": 1, "server": True}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (trial_of(proof("torchserve"), proof("native"), differences={2: "at got: 1 was expected, 2 came"}),
         "torchserve and native, example 2: at got: 1 was expected, 2 came"),
        (trial_of(proof("torchserve"), proof("native", differences={1: "status 200 was expected, 500 came"})),
         "native, example 1: status 200 was expected, 500 came"),
        (trial_of(proof("torchserve"), proof("native", failure="parallelType is not served", answers=())),
         "native: parallelType is not served"),
        (replace(LOADED, figures=[figures("torchserve", 8, 1.0), figures("native", 8, 1.0, wrong=3, problems=["x"])]),
         "native under 8 clients, 3 times: x"),
    ],
    ids=["between", "golden", "failure", "load"],
)  # fmt: skip
def test_what_is_not_equal_ends_with_1(models: Registry, run: Run, asked: Asked, found: Trial, says: str) -> None:
    """Any difference is in the report, and in one line on stderr, with exit status 1; with --json, too."""
    asked.answer = found
    for flags in ((), ("--json",)):
        code, out, err = run("compare", "m", "--registry", models.url, *flags)
        assert code == 1
        lines = err.strip().splitlines()
        assert lines[-1] == f"marway: m 1 is not the same on torchserve and native: {says}"
        if flags:
            assert json.loads(out)["equal"] is False
        else:
            assert out.strip().endswith("DIFFERENT")


def test_a_published_version_is_compared_as_it_is_served(
    models: Registry, run: Run, asked: Asked, tmp_path: Path
) -> None:
    """Its serving settings hold, but for the engine that it asks for; the registry is only read."""
    models.set_serving("m", version="*", set_fields={"load_timeout_s": 9}, unset=(), note=None, by="test")
    before = sorted(str(path) for path in (tmp_path / "models").rglob("*"))
    for named in ("m", "m/1", "m/PROD", models.record("m", "1").id):
        assert run("compare", named, "--registry", models.url)[0] == 0
        record = asked.record
        assert record is not None
        assert record.id == models.record("m", "1").id
        serving = record.serving
        assert (serving.engine, serving.max_batch_rows, serving.predict_timeout_s) == (None, 4, 7)
        assert serving.load_timeout_s == 9
    assert sorted(str(path) for path in (tmp_path / "models").rglob("*")) == before
    code, _, err = run("compare", "m/2", "--registry", models.url)
    assert code == 1
    assert "model 'm' has no version '2'" in err


def test_what_a_published_version_requires_comes_along(
    models: Registry, echo: PackedArchive, run: Run, asked: Asked, tmp_path: Path
) -> None:
    """The pods have a registry of their own: the wheels that the version is locked to are in it, too."""
    wheel = tmp_path / "needed-1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    sha256 = hashlib.sha256(b"a wheel").hexdigest()
    locked = WheelRef(filename=wheel.name, sha256=sha256, size_bytes=7)
    lock = EnvironmentLock(python="3.11", platform="linux-x86_64", wheels=(locked,))
    assert echo.golden is not None
    more = {"id": new_model_id(), "name": "n", "environments": (lock,)}
    record = models.record("m", "1").model_copy(update=more)
    models.publish(record, echo.path, golden=echo.golden.encode(), wheels={sha256: wheel})

    def examine(registry: Registry) -> None:
        with registry.open_wheel(sha256) as handle:
            assert handle.read() == b"a wheel"

    asked.examine = examine
    assert run("compare", "n/1", "--registry", models.url)[0] == 0
    assert asked.record is not None
    assert asked.record.environments == (lock,)


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        (("--engine", "torchserve", "java"), "engine says 'java': installed are", 1),
        (("--engine", "native", "native"), "--engine names native twice: give two that differ", 1),
        (("--clients", "1,x"), "--clients says '1,x': give numbers from 1 to 256, such as 1,8", 1),
        (("--clients", "0"), "--clients says '0'", 1),
        (("--seconds", "0"), "Invalid value for '--seconds'", 2),
    ],
)
def test_wrong_usage(run: Run, asked: Asked, words: tuple[str, ...], says: str, status: int) -> None:
    """What cannot be meant is refused in one line before anything is read or started."""
    code, _, err = run("compare", *words, "missing.mar")
    assert (code, asked.record) == (status, None)
    assert says in err


def test_without_examples_there_is_nothing_to_ask(run: Run, asked: Asked, tmp_path: Path) -> None:
    """An archive with no golden examples is refused, and told how to get some; a missing one as ever."""
    (tmp_path / "its_handler.py").write_text("def handle(data, context):\n    return data\n")
    packed = pack(model_name="m", version="1", handler=str(tmp_path / "its_handler.py"), export_path=tmp_path)
    code, _, err = run("compare", packed.path)
    assert (code, asked.record) == (1, None)
    assert "m.mar carries no golden examples, so there is nothing to ask both engines: give some to" in err
    assert run("compare", "missing.mar")[2].strip() == "marway: missing.mar does not exist"


@pytest.mark.usefixtures("known")
def test_verify_on_engines(echo: PackedArchive, run: Run, asked: Asked) -> None:
    """The report of `marway verify` goes on with a column for each engine, and `both` with how they differ."""
    asked.answer = BOTH
    code, out, err = run("verify", echo.path, "--engine", "both", "--timeout", "30")
    assert (code, err) == (0, "")
    assert asked.found["engines"] == ("torchserve", "native")
    assert "load" not in asked.found
    record = asked.record
    assert record is not None
    assert (record.serving.load_timeout_s, record.serving.predict_timeout_s) == (30, 30)
    assert record.golden_sha256 == (echo.golden.sha256 if echo.golden else None)
    words = " ".join(out.split())
    assert "native and torchserve 1 one 2.00 as golden 2.00 as golden equal" in words
    assert "native 1.2: loaded and proved in 0.50 s verified in" in words
    code, out, _ = run("verify", echo.path, "--engine", "both", "--json")
    document = json.loads(out)
    assert (code, document["ok"], [*document["engines"]]) == (0, True, ["torchserve", "native"])
    assert document["differences"] == []


@pytest.mark.usefixtures("known")
def test_verify_fails_where_an_engine_does(echo: PackedArchive, run: Run, asked: Asked) -> None:
    """What the handler gives by itself does not help: the engine's own answers decide, one by one."""
    asked.answer = trial_of(proof("native", differences={2: "at got: 1 was expected, 2 came"}))
    code, out, _ = run("verify", echo.path, "--engine", "native", "--tolerance", "0.5")
    assert code == 1
    assert "at got: 1 was expected, 2 came" in out
    assert "DIFFERENT" in out
    assert asked.found["tolerance"].relative == 0.5
    code, out, _ = run("verify", echo.path, "--engine", "native", "--json")
    native = json.loads(out)["engines"]["native"]
    assert (code, native["ok"]) == (1, False)
    assert native["examples"][1]["problem"] == "at got: 1 was expected, 2 came"
    asked.answer = trial_of(proof("native", failure="its worker died", answers=()))
    code, _, err = run("verify", echo.path, "--engine", "native")
    assert code == 1
    assert "native: nothing could be proved: its worker died" in err
    assert "engine says 'java': installed are" in run("verify", echo.path, "--engine", "java")[2]


@pytest.mark.usefixtures("known")
def test_verify_without_a_golden_document_takes_what_the_handler_gives(
    echo: PackedArchive, run: Run, asked: Asked
) -> None:
    """Where nothing came with the archive, pods are held to what the handler gave here."""
    asked.answer = BOTH
    echo.path.with_name("m.golden.json").unlink()
    assert run("verify", echo.path, "--engine", "both")[0] == 0
    assert asked.record is not None
    assert asked.record.golden_sha256 is not None
    assert asked.record.serving.max_batch_rows == 32
