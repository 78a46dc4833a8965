"""Pods, what they are made of and what became of them, as `kubectl get -o json` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from marway_ops.cluster.objects import POD, SIDECAR, Condition, Metadata, Object, Part, none_as_empty

__all__ = ["Container", "ContainerStatus", "Deployment", "Mount", "Pod", "Volume"]


class _Reference(Part):
    name: str = ""
    optional: bool = False


class _EnvSource(Part):
    secret_ref: _Reference | None = None


class _ValueFrom(Part):
    secret_key_ref: _Reference | None = None


class _EnvVariable(Part):
    name: str
    value: str = ""
    value_from: _ValueFrom | None = None


class Mount(Part):
    """Where a volume is in a container."""

    name: str
    mount_path: str
    read_only: bool = False


class Container(Part):
    """A container of a pod."""

    name: str
    image: str = ""
    command: Annotated[tuple[str, ...], BeforeValidator(none_as_empty)] = ()
    args: Annotated[tuple[str, ...], BeforeValidator(none_as_empty)] = ()
    env: Annotated[tuple[_EnvVariable, ...], BeforeValidator(none_as_empty)] = ()
    env_from: Annotated[tuple[_EnvSource, ...], BeforeValidator(none_as_empty)] = ()
    volume_mounts: Annotated[tuple[Mount, ...], BeforeValidator(none_as_empty)] = ()

    def secrets(self) -> Iterator[_Reference]:
        """Yield the secrets that its environment comes from."""
        for source in self.env_from:
            if source.secret_ref is not None:
                yield source.secret_ref
        for variable in self.env:
            if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
                yield variable.value_from.secret_key_ref

    def flag(self, name: str) -> str | None:
        """Return what follows a flag on its command line."""
        words = [*self.command, *self.args]
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word == name:
                return following
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
        return None

    def variable(self, name: str) -> str | None:
        """Return the value of a variable that its manifest sets."""
        return next((each.value for each in self.env if each.name == name), None)


class _SecretVolume(Part):
    secret_name: str = ""
    optional: bool = False


class _ProjectedSource(Part):
    secret: _Reference | None = None
    service_account_token: Mapping[str, Any] | None = None


class _Projected(Part):
    sources: Annotated[tuple[_ProjectedSource, ...], BeforeValidator(none_as_empty)] = ()


class Volume(Part):
    """A volume of a pod, as far as it holds secrets."""

    name: str
    secret: _SecretVolume | None = None
    projected: _Projected | None = None

    def secrets(self) -> Iterator[_Reference]:
        """Yield the secrets in it."""
        if self.secret is not None:
            yield _Reference(name=self.secret.secret_name, optional=self.secret.optional)
        for source in self.projected.sources if self.projected is not None else ():
            if source.secret is not None:
                yield source.secret

    @property
    def has_token(self) -> bool:
        """Whether a service account's token is in it, for the API or for somebody else."""
        return self.projected is not None and any(
            source.service_account_token is not None for source in self.projected.sources
        )


class PodSpec(Part):
    """What a pod is made of."""

    containers: tuple[Container, ...] = ()
    init_containers: Annotated[tuple[Container, ...], BeforeValidator(none_as_empty)] = ()
    volumes: Annotated[tuple[Volume, ...], BeforeValidator(none_as_empty)] = ()

    @property
    def every_container(self) -> tuple[Container, ...]:
        """Init containers too, of which the runtime is one."""
        return (*self.init_containers, *self.containers)


class _Waiting(Part):
    reason: str = ""
    message: str = ""


class _Terminated(Part):
    exit_code: int = 0
    reason: str = ""


class _State(Part):
    waiting: _Waiting | None = None
    terminated: _Terminated | None = None


class ContainerStatus(Part):
    """What became of a container."""

    name: str
    ready: bool = False
    restart_count: int = 0
    state: _State = _State()
    last_state: _State = _State()


class PodStatus(Part):
    """What became of a pod."""

    phase: str = ""
    pod_ip: str = Field("", alias="podIP")
    conditions: Annotated[tuple[Condition, ...], BeforeValidator(none_as_empty)] = ()
    container_statuses: Annotated[tuple[ContainerStatus, ...], BeforeValidator(none_as_empty)] = ()
    init_container_statuses: Annotated[tuple[ContainerStatus, ...], BeforeValidator(none_as_empty)] = ()


class PodMetadata(Metadata):
    """A pod's."""

    deletion_timestamp: str | None = None


class Pod(Object):
    """A pod."""

    metadata: PodMetadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def statuses(self) -> tuple[ContainerStatus, ...]:
        return (*self.status.init_container_statuses, *self.status.container_statuses)

    @property
    def leaving(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def ready(self) -> bool:
        return any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)

    @property
    def runtimes(self) -> tuple[Container, ...]:
        """The containers in which models' code runs: all of a pod but the sidecar's."""
        if self.component != POD:
            return ()
        return tuple(each for each in self.spec.every_container if each.name != SIDECAR)


class _Template(Part):
    spec: PodSpec = PodSpec()


class _DeploymentSpec(Part):
    replicas: int = 1
    template: _Template = _Template()


class _DeploymentStatus(Part):
    ready_replicas: int = 0
    conditions: Annotated[tuple[Condition, ...], BeforeValidator(none_as_empty)] = ()


class Deployment(Object):
    """A Deployment."""

    spec: _DeploymentSpec
    status: _DeploymentStatus = _DeploymentStatus()
