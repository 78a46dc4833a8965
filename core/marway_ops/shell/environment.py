"""Variables that begin with MARWAY_ and mean nothing: a slip in a name would look like a setting that does not work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from marway.admin_client import ADMIN_ENV, TOKEN_ENV, TOKEN_FILE_ENV
from marway.errors import clip
from marway.process.stop_request import LIFELINE_ENV
from marway.settings import OBSERVATIONS_ENV, PARTS, REGISTRY_ENV, ComponentSettings, variable_of
from marway.text import did_you_mean
from marway_ops.shell.options import DEBUG_ENV, GATEWAY_ENV

__all__ = ["settings_class", "unknown_variables"]

_PREFIX: Final = "MARWAY_"
_TESTS: Final = "MARWAY_TEST_"
"""For the project's own tests."""
_OWN: Final = frozenset(
    {
        *(ADMIN_ENV, DEBUG_ENV, GATEWAY_ENV, LIFELINE_ENV),
        *(OBSERVATIONS_ENV, REGISTRY_ENV, TOKEN_ENV, TOKEN_FILE_ENV),
    }
)
_CLASSES: Final = {
    "gateway": ("marway_gateway.settings", "GatewaySettings"),
    "runtime": ("marway_runtime.settings", "RuntimeSettings"),
    "sidecar": ("marway_sidecar.settings", "SidecarSettings"),
    "up": ("marway_ops.up.settings", "UpSettings"),
}
_HOST: Final = "_SERVICE_HOST"
_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""The rest of a variable's name behind its Service's."""


def settings_class(part: str) -> type[ComponentSettings] | None:
    """Return a part's settings class, or None where the part is not installed."""
    # By name: core imports no component, and no verb needs another part's settings to run.
    module, name = _CLASSES[part]
    try:
        found: type[ComponentSettings] = getattr(import_module(module), name)
    except ModuleNotFoundError:
        return None
    return found


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each variable that looks like Marway's and has no effect.

    What Kubernetes sets for a Service whose name begins with marway is not Marway's. Settings of parts that are not
    installed cannot be told from slips, and are left alone.
    """
    strange = [name for name in environment if name.upper().startswith(_PREFIX) and name not in _OWN]
    strange = [name for name in strange if not name.startswith(_TESTS) and not _of_a_service(name, environment)]
    if not strange:
        return
    known = set(_OWN)
    missing = []
    for part in PARTS:
        kind = settings_class(part)
        if kind is None:
            missing.append(variable_of(part, ""))
        else:
            known |= {variable_of(part, field) for field in kind.model_fields}
    for name in sorted(strange):
        if name.upper() in known - _OWN or name.upper().startswith(tuple(missing)):
            continue
        yield f"the variable {clip(name, 80)} has no effect{did_you_mean(clip(name, 80), sorted(known))}"


def _of_a_service(name: str, environment: Mapping[str, str]) -> bool:
    """Return whether Kubernetes made a variable for a Service, all of which have `…_SERVICE_HOST` among them.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables; the names are made in
    pkg/kubelet/envvars/envvars.go.
    """
    services = (host.removesuffix(_HOST) for host in environment if host.endswith(_HOST))
    return any(name.startswith(f"{service}_") and _LINK.fullmatch(name, len(service)) for service in services)
