"""Finds pods: those behind a DNS name, and those that the EndpointSlices of a Kubernetes Service name."""

from __future__ import annotations

from marway_gateway.addresses import PodAddress, PodService, PodSlices
from marway_gateway.discovery.discovery import Discovery, DnsSource, FoundPod, Source
from marway_gateway.discovery.kubernetes import SlicesSource
from marway_gateway.discovery.kubernetes_api import KubernetesApi
from marway_gateway.settings import GatewaySettings

__all__ = ["Discovery", "DnsSource", "FoundPod", "SlicesSource", "Source", "sources_of"]


def sources_of(settings: GatewaySettings) -> list[Source]:
    """Return where the settings say that pods are found.

    Raises:
        InvalidSettings: `kubernetes://` is named, and this is no pod of a cluster or it has no service account.
    """
    return [_source(each, settings) for each in settings.pods if not isinstance(each, PodAddress)]


def _source(configured: PodService | PodSlices, settings: GatewaySettings) -> Source:
    if isinstance(configured, PodService):
        return DnsSource(configured, interval_s=settings.dns_interval_s)
    credentials = settings.kubernetes_credentials_dir
    return SlicesSource(
        configured, KubernetesApi(configured.service, configured.namespace, credentials_dir=credentials)
    )
