"""The parts of a running gateway, opened together and closed in reverse."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from marway.errors import InvalidSettings
from marway.objects import open_store
from marway.registry import Registry, open_registry
from marway.resolve.reader import RegistryReader
from marway.resolve.resolver import Resolver
from marway_gateway.access.authentication import TokenFile
from marway_gateway.admin.contracts import ContractChecks
from marway_gateway.admin.kept.searches import KeptPredictions
from marway_gateway.admin.loading import Loader
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.admin.release import Releaser
from marway_gateway.asynchronous.later import LaterPredictions, predicting_later
from marway_gateway.conversion.converters import Converters
from marway_gateway.discovery.opening import watched_pods
from marway_gateway.duties.opening import doing_duties
from marway_gateway.events.history import HistoryScan
from marway_gateway.events.reading import RecentEvents
from marway_gateway.events.webhooks import WebhooksFile
from marway_gateway.feedback.log import FeedbackLog
from marway_gateway.graph.graphs import Graphs
from marway_gateway.graph.opening import opened_graphs
from marway_gateway.health import Readiness
from marway_gateway.observe.gauges import Gauges
from marway_gateway.observe.logs import LogSink
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.observations import Limits, Observations
from marway_gateway.observe.peers import Peers
from marway_gateway.observe.recent import RecentRequests
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.placement import PodSet
from marway_gateway.placement.pod_api import PodApi
from marway_gateway.predict.admission import Admission
from marway_gateway.predict.cache import AnswerCache
from marway_gateway.predict.fallback import Fallbacks
from marway_gateway.predict.pipeline import Predictor
from marway_gateway.predict.retry import Retries, RetryBudget
from marway_gateway.settings import GatewaySettings
from marway_gateway.tasks import Jobs, TaskSet
from marway_gateway.traces.opening import traced
from marway_gateway.traffic.division import Division
from marway_gateway.traffic.rollouts.finding import Finding
from marway_gateway.traffic.rollouts.opening import watching_rollouts
from marway_gateway.traffic.rollouts.rollouts import Rollouts
from marway_gateway.traffic.rollouts.watcher import Watcher
from marway_gateway.traffic.shadow.opening import copying
from marway_http.loop_watch import watch_loop
from marway_observations.store import store_beside_models

__all__ = ["CurrentGateway", "Gateway", "open_gateway"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the apps and the gRPC server of one process share."""

    settings: GatewaySettings
    reader: RegistryReader
    resolver: Resolver
    pods: PodSet
    predictor: Predictor
    graphs: Graphs
    converters: Converters
    readiness: Readiness
    telemetry: Telemetry
    recent: RecentRequests
    writer: RegistryWriter
    pod_api: PodApi
    loader: Loader
    releaser: Releaser
    feedback: FeedbackLog
    kept: KeptPredictions
    later: LaterPredictions
    events: RecentEvents
    webhooks: WebhooksFile | None
    rollouts: Rollouts
    rollout_watcher: Watcher
    token_files: Mapping[Path, TokenFile]
    jobs: Jobs
    peers: Peers | None = None
    """The processes of this gateway, where it has several."""


_log = logging.getLogger(__name__)

CurrentGateway = Callable[[], Gateway]
"""Gives routes the gateway; asked at each request, because an app without one still has its document."""


@asynccontextmanager
async def open_gateway(
    settings: GatewaySettings,
    *,
    registry: Registry | None = None,
    log_stream: TextIO | None = None,
    peers: Peers | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Gateway]:
    """Open a gateway's parts for as long as the context lasts.

    Args:
        settings: All of them.
        registry: Read instead of the one that the settings name.
        log_stream: Where access log lines go; stdout when None.
        peers: The processes of this gateway, where it has several.
        clock: Monotonic seconds, for caches, health and ejection.

    Raises:
        InvalidSettings: No registry is named, or it is of no known kind, or a token or webhooks file cannot be used, or
            `kubernetes://` pods are named outside a cluster.
    """
    if registry is None:
        if settings.registry is None:
            raise InvalidSettings(
                "no registry is named: give --registry URL or set MARWAY_REGISTRY, for example to file:///path"
            )
        registry = open_registry(settings.registry)
    apart = settings.observations not in (None, registry.url)
    observed = open_store(settings.observations or "") if apart else store_beside_models(registry)
    token_files = {path: TokenFile(path) for path in (settings.admin_tokens_file, settings.predict_tokens_file) if path}
    webhooks = WebhooksFile(settings.webhooks_file) if settings.webhooks_file is not None else None
    async with AsyncExitStack() as stack:
        tasks = TaskSet()
        stack.push_async_callback(tasks.aclose)
        if webhooks is not None:
            tasks.start("webhooks", webhooks.follow)
        for path, file in token_files.items():
            tasks.start(f"tokens:{path.name}", file.follow)
        access_log = None
        if settings.access_log:
            access_log = LogSink(log_stream, lock=peers.log_lock if peers is not None else None)
            stack.push_async_callback(asyncio.to_thread, access_log.close)
        metrics = Metrics()
        observations = Observations(observed, metrics, Limits.of(settings))
        stack.push_async_callback(asyncio.to_thread, observations.close)
        telemetry = Telemetry(metrics, access_log, observations)
        recent = RecentRequests(telemetry.durations, clock)
        tasks.start("recent-requests", recent.run)
        tasks.start("loop-watch", partial(watch_loop, telemetry.metrics.loop_blocked.observe))
        reader = RegistryReader(registry, threads=settings.registry_threads, clock=clock)
        stack.push_async_callback(reader.aclose)
        resolver = Resolver(
            reader,
            state_ttl_s=settings.state_ttl_s,
            state_max_stale_s=settings.state_max_stale_s,
            negative_ttl_s=settings.negative_ttl_s,
            wait_s=settings.registry_timeout_s,
            clock=clock,
        )
        stack.push_async_callback(resolver.aclose)
        upstream = await stack.enter_async_context(traced(settings, telemetry))
        converters = Converters(settings.converters)
        stack.push_async_callback(converters.aclose)
        api = PodApi(connect_timeout_s=settings.connect_timeout_s)
        stack.push_async_callback(api.aclose)
        pods = await stack.enter_async_context(watched_pods(settings, api, metrics, clock=clock))
        metrics.registry.register(Gauges(pods, reader, resolver, clock=clock))
        admission = Admission(
            per_version=settings.max_requests_per_version,
            queue_limit=settings.queue_limit,
            queue_timeout_s=settings.queue_timeout_s,
            queued=telemetry.metrics.requests_queued.set,
        )
        pods.load.on_end = admission.pod_freed
        budget = RetryBudget(
            percent=settings.retry_budget_percent,
            minimum=settings.retry_budget_min,
            backoff_s=settings.retry_backoff_s,
            backoff_max_s=settings.retry_backoff_max_s,
            wait_s=settings.retry_wait_s,
            requests=lambda: admission.running,
        )
        history = HistoryScan(registry)
        stack.callback(history.close)
        writer = RegistryWriter(registry, resolver, changed=history.changed if settings.duties else None)
        stack.push_async_callback(writer.aclose)
        graphs, graph_releases, graph_copies = await stack.enter_async_context(
            opened_graphs(*(settings, reader, resolver, telemetry, converters), lambda: predictor, clock=clock)
        )
        loader = Loader(pods, api, writer, graph_releases, algorithm_pools=settings.algorithm_pools)
        contracts = ContractChecks(loader, upstream, writer)
        rollouts = Rollouts()
        telemetry.live = rollouts.answered
        watcher_of_rollouts = await stack.enter_async_context(
            watching_rollouts(
                rollouts,
                resolver=resolver,
                writer=writer,
                loader=loader,
                contracts=contracts,
                pods=pods,
                metrics=telemetry.metrics.registry,
                clock=clock,
            )
        )
        copies = await stack.enter_async_context(
            copying(
                registry.store,
                pods=pods,
                transport=upstream,
                algorithm_pools=settings.algorithm_pools,
                graphs=graph_copies,
                telemetry=telemetry,
                tally=rollouts.tally,
                busy=lambda: admission.queued > 0,
            )
        )
        finding = Finding(registry, rollouts, clock=clock)
        stack.callback(finding.close)
        if settings.duties:
            await stack.enter_async_context(
                doing_duties(settings, writer, history, webhooks, finding, metrics=telemetry.metrics.registry)
            )
        elif webhooks is not None:
            _log.warning("this gateway sends no events to webhooks: its setting `duties` is off")
        jobs = Jobs()
        stack.push_async_callback(jobs.aclose)
        feedback = FeedbackLog(
            observed,
            interval_s=settings.feedback_interval_s,
            max_bytes=settings.feedback_bytes,
            metrics=telemetry.metrics,
        )
        stack.push_async_callback(feedback.aclose)
        predictor = Predictor(
            resolver=resolver,
            cache=AnswerCache(
                max_bytes=settings.cache_bytes,
                ttl_s=settings.cache_ttl_s,
                uses=telemetry.metrics.cache_requests,
                clock=clock,
            ),
            admission=admission,
            pods=pods,
            transport=upstream,
            division=Division(pods, settings.algorithm_pools),
            copies=copies,
            fallbacks=Fallbacks(resolver, pods, telemetry, settings.algorithm_pools),
            graphs=graphs,
            retries=partial(Retries, budget, telemetry.metrics, max_retries=settings.max_retries),
            algorithm_pools=settings.algorithm_pools,
        )
        later = await stack.enter_async_context(predicting_later(settings, observed, telemetry.metrics.registry))
        yield Gateway(
            settings=settings,
            reader=reader,
            resolver=resolver,
            pods=pods,
            predictor=predictor,
            graphs=graphs,
            converters=converters,
            readiness=Readiness(
                pods,
                reader,
                max_stale_s=settings.state_max_stale_s,
                wait_s=settings.registry_timeout_s,
                retry_after_s=settings.health_interval_s,
                clock=clock,
            ),
            telemetry=telemetry,
            recent=recent,
            writer=writer,
            pod_api=api,
            loader=loader,
            releaser=Releaser(loader, writer, contracts),
            feedback=feedback,
            kept=KeptPredictions(registry.url, settings),
            later=later,
            events=RecentEvents(registry.store),
            webhooks=webhooks,
            rollouts=rollouts,
            rollout_watcher=watcher_of_rollouts,
            token_files=token_files,
            jobs=jobs,
            peers=peers,
        )
