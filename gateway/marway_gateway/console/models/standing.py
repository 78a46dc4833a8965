"""How models stand at a glance: where labels point, what divides them, which pods are ready, how many requests come."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from marway.errors import MarwayError
from marway.graphs import GRAPH_BACKEND
from marway.records import ModelState
from marway.traffic import Traffic
from marway_gateway.gateway import Gateway
from marway_gateway.observe.recent import Recent
from marway_gateway.placement import Pod

__all__ = ["LabelStanding", "PodCounts", "Share", "label_standings", "pod_counts", "sum_of"]


@dataclass(frozen=True, slots=True)
class Share:
    """A version and the part of a label's requests that it gets, in percent."""

    version: str
    percent: float


@dataclass(frozen=True, slots=True)
class PodCounts:
    """How many pods have a version, by what it is there: only what is ready takes requests at once."""

    ready: int = 0
    loading: int = 0
    failed: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class LabelStanding:
    """A label as a page shows it.

    Attributes:
        name: The label.
        version: Where it points.
        shares: How its requests are divided: one share of 100 percent where they are not.
        traffic: The rollout or the shadow copies under way, or None.
        pods: Of the version it points at.
        graph: Whether that is a graph, which no pod has.
        recent: Predictions a minute of the versions that share it, by whatever way they were asked for; None: none.
        protected: Whether moves want more than a proof.
    """

    name: str
    version: str
    shares: tuple[Share, ...]
    traffic: Traffic | None
    pods: PodCounts
    graph: bool
    recent: Recent | None
    protected: bool

    @property
    def rollout(self) -> bool:
        """Whether requests are divided between two versions now, or that is paused."""
        return self.traffic is not None and self.traffic.candidate is not None


def pod_counts(pods: Iterable[Pod], now: float) -> dict[tuple[str, str], PodCounts]:
    """Return for each version that is on any pod how many have it, of those that get requests at ``now``."""
    states: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    failures: dict[tuple[str, str], str] = {}
    for pod in pods:
        if pod.status is None or pod.trouble(now) is not None:
            continue
        for model in pod.status.models:
            states[model.name, model.version][model.state] += 1
            if model.failure is not None:
                failures[model.name, model.version] = model.failure
    return {
        key: PodCounts(found["ready"], found["loading"] + found["fetching"], found["failed"], failures.get(key))
        for key, found in states.items()
    }


async def label_standings(gateway: Gateway, model: str, state: ModelState) -> tuple[LabelStanding, ...]:
    """Return how the labels of a model stand, PROD first."""
    counts = pod_counts(gateway.pods.pods, gateway.pods.now())
    rates = gateway.recent.counts()
    found = []
    for label, version in sorted(state.labels.items(), key=lambda each: (each[0] != "PROD", each[0])):
        traffic = state.traffic.get(label)
        shares = _shares(version, traffic)
        found.append(
            LabelStanding(
                name=label,
                version=version,
                shares=shares,
                traffic=traffic,
                pods=counts.get((model, version), PodCounts()),
                graph=await _is_graph(gateway, model, version),
                recent=sum_of(rates.get((model, share.version)) for share in shares),
                protected=label in state.protection,
            )
        )
    return tuple(found)


def sum_of(rates: Iterable[Recent | None]) -> Recent | None:
    """Return the sum of rates; None where there are none."""
    known = [each for each in rates if each is not None]
    return Recent(sum(each.requests for each in known), sum(each.errors for each in known)) if known else None


def _shares(version: str, traffic: Traffic | None) -> tuple[Share, ...]:
    if traffic is None or traffic.candidate is None:
        return (Share(version, 100.0),)
    base = traffic.base or version
    return Share(base, 100.0 - traffic.percent), Share(traffic.candidate, traffic.percent)


async def _is_graph(gateway: Gateway, model: str, version: str) -> bool:
    """Return whether a version is a graph; records never change, and the resolver remembers them."""
    try:
        return (await gateway.resolver.resolve(model, version)).record.backend == GRAPH_BACKEND
    except MarwayError:  # deleted just now, or damaged: its own page says what it is
        return False
