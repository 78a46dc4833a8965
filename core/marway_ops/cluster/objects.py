"""Kubernetes objects, as far as the checks need them, as `kubectl get -o json` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

__all__ = ["GATEWAY", "MARWAY", "POD", "SIDECAR", "Container", "Object", "Part", "Pod", "PodSpec", "Volume", "selects"]

MARWAY: Final = "app.kubernetes.io/part-of=marway"
GATEWAY, POD = "gateway", "pod"
SIDECAR: Final = "sidecar"
"""Name of the sidecar's container; all others of a pod are the runtime's, or run beside it."""
_COMPONENT: Final = "app.kubernetes.io/component"

T = TypeVar("T")
P = TypeVar("P", bound="Part")


class Part:
    """A part of a document. What is not there, null, or of another type than it should be reads as its default."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __bool__(self) -> bool:
        """Whether it is there."""
        return self._raw is not None

    def at(self, path: str, default: T) -> T:
        """Return what is at a path such as ``spec.replicas``, whose type is that of the default."""
        found = self._raw
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, type(default)) else default

    def text(self, path: str) -> str:
        return self.at(path, "")

    def part(self, path: str) -> Part:
        above, _, last = path.rpartition(".")
        found: Mapping[str, Any] = self.at(above, {}) if above else self._raw or {}
        return Part(found.get(last))

    def parts(self, path: str, kind: type[P]) -> tuple[P, ...]:
        found: list[Any] = self.at(path, [])
        return tuple(kind(each) for each in found)

    @property
    def name(self) -> str:
        return self.text("name") or self.text("secretName")


class Object(Part):
    """Any object."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self._name: str = raw["metadata"]["name"]

    @property
    def name(self) -> str:
        return self._name

    @property
    def labels(self) -> Mapping[str, str]:
        return self.at("metadata.labels", {})

    @property
    def component(self) -> str:
        """`gateway`, `pod`, or nothing that we know."""
        return self.labels.get(_COMPONENT, "")

    @property
    def conditions(self) -> tuple[Part, ...]:
        return self.parts("status.conditions", Part)


def selects(selector: Part, labels: Mapping[str, str]) -> bool:
    """Return whether labels are among those that a selector means; an empty one means all."""
    wanted: Mapping[str, str] = selector.at("matchLabels", {})
    return wanted.items() <= labels.items() and all(
        _fits(labels.get(each.text("key")), each.text("operator"), each.at("values", []))
        for each in selector.parts("matchExpressions", Part)
    )


def _fits(value: str | None, operator: str, values: list[str]) -> bool:
    fits = {"In": value in values, "NotIn": value not in values, "Exists": value is not None}
    return fits.get(operator, value is None)


class Container(Part):
    """A container of a pod."""

    @property
    def env(self) -> tuple[Part, ...]:
        return self.parts("env", Part)

    @property
    def mounts(self) -> tuple[Part, ...]:
        return self.parts("volumeMounts", Part)

    def secrets(self) -> Iterator[Part]:
        """Yield the references to secrets that its environment comes from."""
        yield from (each.part("secretRef") for each in self.parts("envFrom", Part) if each.part("secretRef"))
        keys = (each.part("valueFrom.secretKeyRef") for each in self.env)
        yield from (each for each in keys if each)

    def flag(self, name: str) -> str:
        """Return what follows a flag on its command line, or nothing."""
        words: list[str] = [*self.at("command", []), *self.at("args", [])]
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word == name:
                return following
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
        return ""

    def variable(self, name: str) -> str:
        """Return the value of a variable that its manifest sets, or nothing."""
        return next((each.text("value") for each in self.env if each.name == name), "")


class Volume(Part):
    """A volume of a pod, as far as it holds secrets."""

    def secrets(self) -> Iterator[Part]:
        """Yield the references to secrets in it."""
        sources = self.parts("projected.sources", Part)
        return (each for each in (self.part("secret"), *(source.part("secret") for source in sources)) if each)

    @property
    def has_token(self) -> bool:
        """Whether a service account's token is in it, for the API or for somebody else."""
        return any(source.part("serviceAccountToken") for source in self.parts("projected.sources", Part))


class PodSpec(Part):
    """What a pod is made of; init containers count, of which the runtime is one."""

    @property
    def containers(self) -> tuple[Container, ...]:
        return (*self.parts("initContainers", Container), *self.parts("containers", Container))

    @property
    def volumes(self) -> tuple[Volume, ...]:
        return self.parts("volumes", Volume)


class Pod(Object):
    """A pod."""

    @property
    def spec(self) -> PodSpec:
        return PodSpec(self.at("spec", {}))

    @property
    def statuses(self) -> tuple[Part, ...]:
        """What became of each container."""
        return (*self.parts("status.initContainerStatuses", Part), *self.parts("status.containerStatuses", Part))

    @property
    def leaving(self) -> bool:
        return bool(self.text("metadata.deletionTimestamp"))

    @property
    def ready(self) -> bool:
        return any(each.text("type") == "Ready" and each.text("status") == "True" for each in self.conditions)

    @property
    def runtimes(self) -> tuple[Container, ...]:
        """The containers in which models' code runs: all of a pod but the sidecar's."""
        return tuple(each for each in self.spec.containers if each.name != SIDECAR)
