"""Network namespaces for tests: a few machines, each with an address, and the test's own machine beside them.

A namespace of its own routes between them, so that nothing of the machine is changed but for one interface::

    test (.1) ── router (.254) ── a (.11), b (.12), …
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

__all__ = ["Network", "missing", "network"]

# Of the addresses set aside for tests of networks (RFC 2544), which no real network has.
_NETS = "198.18"


@dataclass(frozen=True)
class Network:
    """Machines that reach one another.

    Attributes:
        tag: Names what belongs to it on the machine.
        here: The test's own address.
        addresses: The others', by name.
    """

    tag: str
    here: str
    addresses: dict[str, str]

    def inside(self, name: str) -> list[str]:
        """Return what stands before a command that is to run on a machine."""
        return ["nsenter", f"--net=/run/netns/{self.tag}{name}"]


def missing() -> str | None:
    """Return why there can be no namespaces here, if so."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        return "network namespaces need iproute2 and util-linux"
    tried = subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()}"


@contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """Have machines of these names for the length of a block; processes on them must have ended by its end."""
    with ExitStack() as stack:
        tag, net = _claim(stack)
        router = f"{tag}router"
        _ip("-n", router, "link", "set", "lo", "up")
        _run("ip", "netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        made = Network(tag, f"{net}.1", {name: f"{net}.{11 + place}" for place, name in enumerate(names)})
        _join(router, net, 1, namespace=None, interface=f"{tag}host")
        # Said outright: the kernel takes namespaces apart some time after their end, and its name with them.
        stack.callback(_ip, "link", "delete", f"{tag}host")
        for place, name in enumerate(names):
            namespace = f"{tag}{name}"
            _ip("netns", "add", namespace)
            stack.callback(_remove, namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
            _join(router, net, 11 + place, namespace=namespace, interface="eth0")
        yield made


def _claim(stack: ExitStack) -> tuple[str, str]:
    """Take the first number that no other test has: making the router's namespace is what claims it."""
    for number in count():
        tag = f"mwt{number}-"
        if Path(f"/sys/class/net/{tag}host").exists():
            continue  # of a test that was killed
        if subprocess.run(["ip", "netns", "add", f"{tag}router"], capture_output=True).returncode == 0:
            stack.callback(_remove, f"{tag}router")
            return tag, f"{_NETS}.{number}"
    raise AssertionError("unreachable")


def _join(router: str, net: str, place: int, *, namespace: str | None, interface: str) -> None:
    there = ("-n", namespace) if namespace is not None else ()
    port = f"to-{place}"
    _ip(*there, "link", "add", "name", interface, "type", "veth", "peer", "name", port, "netns", router)
    _ip("-n", router, "addr", "add", f"{net}.254/32", "dev", port)
    _ip("-n", router, "link", "set", port, "up")
    _ip("-n", router, "route", "add", f"{net}.{place}/32", "dev", port)
    _ip(*there, "addr", "add", f"{net}.{place}/32", "dev", interface)
    _ip(*there, "link", "set", interface, "up")
    _ip(*there, "route", "add", f"{net}.254/32", "dev", interface)
    _ip(*there, "route", "add", f"{net}.0/24", "via", f"{net}.254", "dev", interface)


def _remove(namespace: str) -> None:
    # The ends of the cables in it go with it, and so the other ends.
    subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
