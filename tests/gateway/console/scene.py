"""A gateway with something to see on every page: pods that are full, a rollout, shadow copies, events, settings."""

from __future__ import annotations

import contextlib
import random
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.records import utc_now
from marway.registry import Registry
from marway.registry.traffic.reports import RolloutReport
from marway.shadow.counts import Example, ShadowCounts
from marway.shadow.report import ProcessCounts, counts_key
from marway.wire.pods import ModelStatus, PodStatus
from marway.wire.rollouts import EvidencePoint, GuardEvidence
from marway.wire.runtime import DeviceMemory
from marway_gateway.traffic.evidence import Evidence, Side, Tally, judged, merged
from marway_gateway.traffic.rollouts.exchange import EvidenceDocument, Exchange
from marway_observations.events.event import DRIFTED, QUALITY_BELOW_MINIMUM, RELEASED, ROLLED_BACK, Event
from marway_observations.events.log import EventLog
from support.registry import publish

__all__ = ["Scene", "ShownPod", "scene"]

MIB = 2**20
GUARDS = {"errors": None, "latency": None, "disagreement": None}


@dataclass
class ShownPod(AdminPod):
    """A pod with memory and GPUs."""

    budget: int | None = 8192 * MIB
    devices: tuple[DeviceMemory, ...] = ()

    @property
    def status(self) -> PodStatus:
        return super().status.model_copy(
            update={
                "python_version": "3.12.3",
                "torch_version": "2.12.0",
                "server_version": "0.12.0",
                "memory_used_bytes": sum(each.memory_bytes for each in self.models),
                "memory_budget_bytes": self.budget,
                "devices": self.devices,
            }
        )


@dataclass(frozen=True)
class Scene:
    """What is served, and by whom."""

    gateway: Running
    registry: Registry
    pods: tuple[ShownPod, ShownPod]


@contextlib.asynccontextmanager
async def scene(registry: Registry, scratch: Path, *, points: int = 3, **flags: object) -> AsyncIterator[Scene]:
    """Serve it. The more ``points`` the evidence has, the better it looks, and the longer it takes to make."""
    for version in ("1.0", "1.1", "1.2"):
        publish(registry, scratch, version=version, label="PROD" if version == "1.0" else None)
    publish(registry, scratch, "sentiment", "2.0")
    publish(registry, scratch, "sentiment", "2.1", label="STG")
    registry.start_rollout(
        *("intent", "1.1"),
        label="PROD",
        by="ana",
        note="smaller, and as good on the test set",
        guards=GUARDS,
        step_time_s=600,
    )
    traffic = registry.state("intent").traffic["PROD"]
    assert traffic.rollout is not None
    counted(registry, traffic.rollout, points)
    registry.start_shadow("sentiment", "2.1", label="PROD", percent=50, by="ana")
    copied(registry)
    told(registry)
    webhooks = scratch / "webhooks.toml"
    secret = b64encode(secrets.token_bytes(32)).decode()
    webhooks.write_text(
        f'[[webhook]]\nname = "retrain"\nurl = "https://ci.example.com/hooks/s3cr3t-path?key=k3y"\n'
        f'secret = "whsec_{secret}"\ntypes = ["dev.marway.model.quality_below_minimum"]\nmodels = ["intent"]\n'
    )
    webhooks.chmod(0o600)
    pods = (
        ShownPod("pod-0", registry=registry, models=models(), devices=gpus()),
        ShownPod("pod-1", registry=registry, models=models()[:2], budget=None, backend="native"),
    )
    async with contextlib.AsyncExitStack() as stack:
        for pod in pods:
            await pod.start()
            stack.push_async_callback(pod.stop)
        flags = {"webhooks_file": webhooks, "cors_origins": ("https://app.example.com",), "duties": False, **flags}
        gateway = await stack.enter_async_context(running(*pods, registry=registry, **flags))
        while (await gateway.client.get("/readyz")).status_code != 200:
            pass
        yield Scene(gateway, registry, pods)


def models() -> tuple[ModelStatus, ...]:
    now = utc_now()

    def model(name: str, version: str, **facts: Any) -> ModelStatus:
        return ModelStatus(id=f"run-{name}-{version}", name=name, version=version, **facts)

    return (
        model(
            "intent", "1.0", state="ready", workers=2, memory_bytes=1900 * MIB, requests_in_flight=2, last_used_at=now
        ),
        model("intent", "1.1", state="ready", workers=1, memory_bytes=1400 * MIB, requests_queued=3, last_used_at=now),
        model("sentiment", "2.0", state="loading", memory_bytes=900 * MIB),
        model(
            *("sentiment", "2.1"),
            state="failed",
            failure="handler.py raised KeyError: 'vocabulary' in initialize (line 31)",
            retry_after_s=8.0,
        ),
        model("intent", "1.2", state="absent", unloaded_for="memory", unloaded_at=now - timedelta(minutes=3)),
    )


def gpus() -> tuple[DeviceMemory, ...]:
    return (DeviceMemory(index=0, name="NVIDIA L4", total_bytes=24576 * MIB, used_bytes=9000 * MIB, workers=2),)


def counted(registry: Registry, rollout: str, points: int) -> None:
    """Have another gateway have counted requests of a rollout, whose evidence was kept as it grew."""
    chance, tally = random.Random(4), Tally(GUARDS)

    def side() -> Side:
        return Side(failed=chance.random() < 0.002, finite=True, model_s=chance.gauss(0.02, 0.002))

    began, course = utc_now() - timedelta(minutes=5), []
    evidence: dict[str, GuardEvidence] = {}
    for number in range(points):
        step, share = (0, 0.01) if number < points // 3 else (1, 0.05)
        for _ in range(9000 // points):
            tally.live(step, share, side(), candidate=chance.random() < share)
            tally.pair(step, side(), side(), shape_differs=False, disagrees=chance.random() < 0.03)
        evidence = judged(merged([tally.document()]), GUARDS, 0.01, step)
        at = began + timedelta(minutes=5) * (number / points)
        course.append(EvidencePoint.of(at, step, share * 100, evidence))
    entry = next(each for each in registry.history("intent") if each.rollout is not None)
    report = RolloutReport(
        op_id=entry.op_id,
        at=utc_now(),
        action="step",
        step=0,
        percent=1.0,
        step_s=60.0,
        evidence=evidence,
        processes=2,
        course=tuple(course),
    )
    registry.store_report("intent", rollout, report)
    document = EvidenceDocument(process="other", tally=Evidence.model_validate(tally.document()))
    Exchange(registry.store, "other").write("intent", rollout, document)


def copied(registry: Registry) -> None:
    """Have copies have told something."""
    traffic = registry.state("sentiment").traffic["PROD"]
    run = f"shadow-PROD-{traffic.began:%Y%m%dT%H%M%S%f}"
    counts = ShadowCounts(answered=5120, failed=2, compared=5118, equal=612, agreed=5036, shape_differs=4, rows=5118)
    counts.dropped["no_room"] = 31
    counts.fields.update({"score": 4500, "label": 82})
    counts.decisions['"neutral" is now "positive"'] = 40
    counts.errors["status 500"] = 2
    for _ in range(100):
        counts.model_s.add(0.0034)
        counts.base_model_s.add(0.0041)
    counts.note(
        Example(
            at=datetime.now().timestamp() - 60,
            kind="decision",
            prediction_id="01JD0Z6Y8Q6V5T4S3R2P1N0M9K",
            base_prediction_id="01JD0Z6Y8Q6V5T4S3R2P1N0M9J",
            text='at label: "neutral" was expected, "positive" came',
        )
    )
    document = ProcessCounts(
        model="sentiment", label="PROD", run=run, base="2.0", began=traffic.began, versions={"2.1": counts}
    )
    registry.store.create(counts_key("sentiment", run, "other"), document.model_dump_json().encode())


def told(registry: Registry) -> None:
    log, now = EventLog(registry.store), utc_now()
    facts: list[tuple[str, str, dict[str, Any]]] = [
        (RELEASED, "intent", {"version": "1.0", "label": "PROD", "by": "ana", "previous_version": None}),
        (
            QUALITY_BELOW_MINIMUM,
            "sentiment",
            {"version": "2.0", "metric": "accuracy", "value": 0.8123, "minimum": 0.85},
        ),
        (ROLLED_BACK, "intent", {"version": "1.0", "label": "STG", "by": "ben", "note": "mistakes alarms for timers"}),
        (DRIFTED, "sentiment", {"version": "2.0", "field": "input.length", "distance": 0.31}),
    ]
    for number, (kind, model, data) in enumerate(facts):
        at = now - timedelta(minutes=7 * (len(facts) - number))
        log.raise_(Event(id=f"{model}-{number}", type=kind, subject=model, time=at, data={"model": model, **data}))
