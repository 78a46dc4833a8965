"""Which names a pod in Kubernetes has: those of its own namespace, and of its cluster's domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway.errors import ForeignOrigin, Misdirected
from marway.wire.hosts import HostGuard, parse_hosts


def test_names_within_a_cluster(tmp_path: Path) -> None:
    """`NAME.NAMESPACE` is ours in our own namespace alone: elsewhere it is a public domain like any other."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(
        "nameserver 10.0.0.10\nsearch serving.svc.c1.internal svc.c1.internal c1.internal\noptions ndots:5\n"
    )
    inside = HostGuard(bound="0.0.0.0", setting="x", resolv_conf=resolv)  # a setting, nothing is bound
    outside = HostGuard(bound="0.0.0.0", setting="x", resolv_conf=tmp_path / "none")
    names = ("gateway-admin.serving:8001", "a.b.serving", "a.serving.svc", "a.serving.svc.c1.internal:9000")
    assert [inside([(b"host", name.encode())]) is None for name in names] == [True] * 4
    assert [outside([(b"host", name.encode())]) is None for name in names] == [False, False, True, False]
    assert isinstance(inside([(b"host", b"gateway.other")]), Misdirected)


def test_a_name_the_port_is_bound_to() -> None:
    """The name that a port is bound to is one of its names; an origin must name the same host and port."""
    guard = HostGuard(bound="gpu1.example.com", setting="x")
    host = (b"host", b"GPU1.example.com:9000")
    assert guard([host]) is None
    assert guard([host, (b"origin", b"http://gpu1.example.com:9000")]) is None
    assert isinstance(guard([host, (b"origin", b"http://gpu1.example.com:9001")]), ForeignOrigin)
    assert guard([]) is None  # HTTP/1.0, which no browser speaks


@pytest.mark.parametrize("name", ["http://a", "a/b", "*a", "a.*", "a b", "a:80", "[::1]"])
def test_what_is_no_name(name: str) -> None:
    """A setting that would never match is refused when it is read."""
    with pytest.raises(ValueError, match="no host name"):
        parse_hosts([name])


def test_names_in_a_setting() -> None:
    """With commas or as a list, in any case, with or without the root's dot."""
    assert parse_hosts("A.example., *.b.example ,") == parse_hosts(["a.example", "*.B.example"])
